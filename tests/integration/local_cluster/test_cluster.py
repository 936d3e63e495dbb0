"""The whole system on free ports, as the end-to-end tests use it."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from local_cluster.ops import _SHOWN_BY, command_for
from local_cluster.settings import REPOSITORY
from local_cluster.status import Trouble
from local_cluster.testing import RunningCluster, running_cluster
from services import SERVICES, WITH_DATABASE
from tests.declared import declared
from tests.integration.local_cluster.waiting import until

pytestmark = [pytest.mark.xdist_group("local_cluster"), pytest.mark.timeout(600)]


#: Checks that one service has.
ONLY_AT = {"failed-deliveries": "notification", "signing-keys": "users"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("system") / "cluster") as cluster:
        yield cluster


def command(cluster: RunningCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(cluster, sys.executable, "-m", "local_cluster", *arguments)


def typed(cluster: RunningCluster, line: str) -> subprocess.CompletedProcess[str]:
    """Run a command of make as someone types it, here without installing anything."""
    make, *words = shlex.split(line)
    assert make == "make"
    # Relative, since make takes a path with a space for two.
    environment = os.path.relpath(sys.prefix, REPOSITORY)
    installed = (f"VENV={environment}", f"--assume-old={environment}/product")
    return run(cluster, "make", *installed, *words)


def run(cluster: RunningCluster, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=REPOSITORY,
        # It finds the ports in the directory.
        env=os.environ | {"LOCAL_DIRECTORY": str(cluster.directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def ready(cluster: RunningCluster, name: str) -> bool:
    try:
        return httpx.get(f"{cluster.url(name)}/health/ready", timeout=5).is_success
    except httpx.HTTPError:
        return False


class TestTheSystem:
    def test_every_process_is_ready(self, cluster: RunningCluster) -> None:
        assert all(ready(cluster, service.name) for service in SERVICES)

    def test_the_operator_signs_in_at_the_gateway(self, cluster: RunningCluster) -> None:
        answer = httpx.post(
            f"{cluster.gateway_url}/auth/token",
            data={"username": cluster.operator, "password": cluster.operator_password},
            timeout=60,
        )

        assert answer.status_code == 200, answer.text

    def test_a_killed_service_comes_back(self, cluster: RunningCluster) -> None:
        first = cluster.processes()["accounts"].pid

        cluster.kill("accounts")

        until(lambda: cluster.processes()["accounts"].pid not in (0, first))
        until(lambda: ready(cluster, "accounts"), within_s=60)

    def test_a_stopped_process_stays_so_until_it_is_resumed(self, cluster: RunningCluster) -> None:
        cluster.stop("audit")
        ready_while_stopped = ready(cluster, "audit")
        cluster.resume("audit")

        assert not ready_while_stopped
        until(lambda: ready(cluster, "audit"), within_s=60)

    def test_one_more_worker_of_a_service_runs_until_it_is_removed(
        self, cluster: RunningCluster
    ) -> None:
        name = cluster.add_worker("accounts", 2, stop_signal=signal.SIGKILL)
        log = cluster.log(name)
        # It takes a free port, and logs that when it serves.
        until(lambda: log.exists() and '"listening"' in log.read_text(), within_s=60)
        running = cluster.processes()[name]
        cluster.remove_worker(name)
        removed = cluster.processes()[name]

        assert (name, running.state, running.port) == ("accounts-2", "running", None)
        assert (removed.state, removed.last_exit) == ("stopped", "killed by SIGKILL")

    def test_a_service_that_is_left_out_is_started_by_hand_with_the_settings_of_the_cluster(
        self, cluster: RunningCluster
    ) -> None:
        cluster.up(without=["accounts"])
        ready_while_left_out = ready(cluster, "accounts")
        by_hand = subprocess.Popen(
            ["/bin/sh", "-c", cluster.command_by_hand("accounts")],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            until(lambda: ready(cluster, "accounts"), within_s=60)
        finally:
            os.killpg(by_hand.pid, signal.SIGKILL)
            by_hand.wait()
            until(lambda: not ready(cluster, "accounts"))
        cluster.up()

        assert not ready_while_left_out
        assert ready(cluster, "accounts")
        assert cluster.processes()["accounts"].pid

    def test_status_has_every_process_and_outbox(self, cluster: RunningCluster) -> None:
        report = json.loads(command(cluster, "status", "--json").stdout)

        assert report["outboxes"] == {service.name: 0 for service in WITH_DATABASE}
        assert {each["name"] for each in report["processes"]} >= {
            "kafka",
            "postgres",
            *(service.name for service in SERVICES),
        }

    def test_each_command_that_a_trouble_names_works_as_it_is_printed(
        self, cluster: RunningCluster
    ) -> None:
        troubles = [Trouble(ONLY_AT.get(check, "audit"), check, "") for check in _SHOWN_BY]
        # What no operator's command shows, the log does.
        troubles += [Trouble(process, "process", "") for process in ("kafka", "postgres", "audit")]

        for trouble in troubles:
            if trouble.process in ("kafka", "postgres") or declared(trouble.process):
                completed = typed(cluster, command_for(trouble))
                assert completed.returncode == 0, completed.stderr

    async def test_bytes_that_are_no_event_are_found_by_verify_until_an_operator_accepts_them(
        self, cluster: RunningCluster
    ) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=cluster.kafka_bootstrap)
        await producer.start()
        sent = await producer.send_and_wait("users.task", b"not an event", partition=0)
        await producer.stop()

        before = json.loads(command(cluster, "verify", "--json").stdout)
        place = ("users.task", "0", str(sent.offset))
        tolerated = command(cluster, "ops", "audit", "progress", "tolerate", *place, "--why", "x")
        after = command(cluster, "verify")

        assert [each["name"] for each in before["checks"] if each["violated"]] == ["topics"]
        assert tolerated.returncode == 0, tolerated.stderr
        assert after.returncode == 0, after.stdout

    def test_an_operators_command_names_the_services_that_have_one(
        self, cluster: RunningCluster
    ) -> None:
        unknown = command(cluster, "ops", "gateway", "parked", "list")

        record = ("parked", "discard-record", "users.user", "0", "9", "--why", "a test")
        everywhere = command(cluster, "ops", "all", *record)
        lines = everywhere.stdout.splitlines()

        assert unknown.returncode == 1
        assert everywhere.returncode == 0, everywhere.stderr
        assert [line for line in lines if line.endswith(":")] == [
            f"{service.name}:" for service in WITH_DATABASE
        ]
        assert "no service gateway; there are: users, accounts, audit" in unknown.stderr

    def test_kafkas_own_consumer_reads_what_a_sign_up_published(
        self, cluster: RunningCluster
    ) -> None:
        answer = httpx.post(
            f"{cluster.gateway_url}/users",
            json={"username": "foreign", "email": "f@example.com", "password": "long enough"},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text

        consumer = command(
            cluster,
            "kafka-console-consumer",
            "--",
            *("--topic", "users.user", "--from-beginning"),
            *("--max-messages", "1", "--timeout-ms", "60000"),
        )

        assert json.loads(consumer.stdout)["subject"] == answer.json()["id"]
