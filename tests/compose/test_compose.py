"""docker-compose.yml: it is up as a whole, and loses nothing whatever dies or is cut off."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Final

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from packaging.utils import canonicalize_name

from chassis.kafka.client import KafkaSecurity, admin_client
from chassis.kafka.groups import group_assignments
from chassis.settings import KafkaSettings
from chassis.testing import eventually
from contracts.topics import USERS_USER
from local_cluster.settings import REPOSITORY
from tests.compose.outcome import has_arrived, nothing_is_lost
from tests.compose.system import System, health_of
from tests.e2e.people import Operator, Person
from tests.faults.workload import Workload

pytestmark = pytest.mark.timeout(900)

#: Longer than the sessions at Kafka and PostgreSQL, and than a service waits for a command.
CUT_S: Final = float(os.environ.get("COMPOSE_CUT_S", "60"))
CONSOLE_CONSUMER: Final = "/opt/kafka/bin/kafka-console-consumer.sh"


class TestUp:
    def test_ends_with_everything_healthy_and_every_job_done(self, system: System) -> None:
        found = {
            each["Config"]["Labels"]["com.docker.compose.service"]: each
            for each in system.containers()
        }

        assert {
            name for name, each in found.items() if health_of(each) == "healthy"
        } == system.staying
        jobs = {name: each["State"] for name, each in found.items() if name not in system.staying}
        assert {(each["Status"], each["ExitCode"]) for each in jobs.values()} == {("exited", 0)}

    def test_no_process_of_ours_is_root_or_can_write_beside_its_volumes(
        self, system: System
    ) -> None:
        for name in system.staying - {"kafka", "postgres"}:
            shown = system.compose(
                "exec", "-T", name, "sh", "-c", "id -u; touch /app/new 2>&1 || true"
            )
            assert shown.startswith("10001\n")
            assert "Read-only file system" in shown

    def test_the_image_lists_the_packages_that_it_contains_and_these_are_the_locked_ones(
        self, system: System
    ) -> None:
        (users,) = system.containers("users")
        path = users["Config"]["Labels"]["kafka-native-onboarding.sbom"]

        listed = json.loads(system.compose("exec", "-T", "users", "cat", path))["components"]

        locked = (REPOSITORY / "requirements-image.txt").read_text()
        assert listed
        for each in listed:
            name = canonicalize_name(each["name"])
            assert f"\n{name}=={each['version']} " in f"\n{locked}"


class TestASignUp:
    async def test_is_seen_over_http_and_by_a_client_of_kafka_that_is_not_ours(
        self, system: System, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        person = Person(gateway)
        await person.sign_up()

        await has_arrived(operator, person)
        printed = system.compose(
            *("exec", "-T", "kafka", CONSOLE_CONSUMER, "--bootstrap-server=localhost:9092"),
            *(f"--topic={USERS_USER.name}", "--from-beginning", "--timeout-ms=5000"),
        )
        events = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        assert [each["type"] for each in events if each["subject"] == person.id] == [
            "users.user-signed-up.v1"
        ]

    async def test_is_read_from_the_host_at_the_published_port(
        self, system: System, gateway: httpx.AsyncClient
    ) -> None:
        person = Person(gateway)
        await person.sign_up()

        async with asyncio.timeout(60):
            consumer = AIOKafkaConsumer(
                USERS_USER.name,
                bootstrap_servers=system.kafka_bootstrap,
                auto_offset_reset="earliest",
            )
            await consumer.start()
            try:
                while (await consumer.getone()).key != person.id.encode():
                    pass
            finally:
                await consumer.stop()

    def test_is_shown_by_the_demo(self, system: System) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "local_cluster", "demo", "--compose"],
            cwd=REPOSITORY,
            env=system.environment,
            capture_output=True,
            text=True,
            check=False,
        )

        assert ended.returncode == 0, ended.stdout + ended.stderr
        for step in ("outbox", "Kafka", "account opened", "tasks created", "audit record"):
            assert step in ended.stdout
        assert "the balance is 70.00" in ended.stdout


class TestTwoClients:
    async def test_share_an_address_and_one_that_fails_often_does_not_shut_out_the_other(
        self, system: System, gateway: httpx.AsyncClient
    ) -> None:
        person = Person(gateway)
        await person.sign_up()
        wrong = {"password": "not the password"}

        # More than one network may fail, unless it is known to be shared.
        async with httpx.AsyncClient(base_url=system.gateway_url, timeout=60) as other:
            for number in range(110):
                answer = await other.post("/auth/token", data=wrong | {"username": f"n.{number}"})
                assert answer.status_code == httpx.codes.UNAUTHORIZED

        assert await person.sign_in()


class TestData:
    async def test_outlives_down_and_up_and_so_does_a_password_that_is_changed(
        self, system: System, gateway: httpx.AsyncClient
    ) -> None:
        person = Person(gateway)
        await person.sign_up()
        url = "/run/secrets/users/database_url"
        before = system.compose("exec", "-T", "users", "cat", url)
        originals = "/secrets/all"

        remove = ("run", "--rm", "--entrypoint", "rm", "secrets", f"{originals}/postgres-users")
        await asyncio.to_thread(system.compose, *remove)
        await asyncio.to_thread(system.down)
        await asyncio.to_thread(system.up)

        assert await person.sign_in()
        assert system.compose("exec", "-T", "users", "cat", url) != before

    def test_is_in_volumes_with_names_and_nothing_else(self, system: System) -> None:
        mounts = [mount for each in system.containers() for mount in each["Mounts"]]

        assert {each["Name"].partition("_")[0] for each in mounts} == {system.project}


class TestAService:
    async def test_that_is_scaled_shares_its_partitions_and_survives_the_loss_of_one(
        self, system: System, operator: Operator
    ) -> None:
        load = Workload(system.gateway_url)
        try:
            async with load.at(per_second=3):
                await asyncio.to_thread(system.scale, "accounts", 3)
                await eventually(lambda: members(system, "accounts", 3), within_s=120)
                await killed(system, "accounts")
                await eventually(lambda: members(system, "accounts", 3), within_s=120)

            await nothing_is_lost(system, operator, load)
        finally:
            await asyncio.to_thread(system.scale, "accounts", 1)

    async def test_that_is_killed_is_started_again_and_nothing_is_lost(
        self, system: System, operator: Operator
    ) -> None:
        load = Workload(system.gateway_url)
        async with load.at(per_second=3):
            for name in ("users", "audit"):
                await killed(system, name)

        await nothing_is_lost(system, operator, load)

    async def test_that_is_cut_off_is_unhealthy_and_nothing_is_lost(
        self, system: System, operator: Operator
    ) -> None:
        load = Workload(system.gateway_url, give_up_after_s=CUT_S + 120)
        names = ("users", "accounts")
        (users,), (accounts,) = (system.containers(name) for name in names)
        async with load.at(per_second=3):
            for each in (users, accounts):
                await asyncio.to_thread(
                    system.docker, "network", "disconnect", system.network, each["Id"]
                )
            try:
                await asyncio.gather(unhealthy(system, names), asyncio.sleep(CUT_S))
            finally:
                for name, each in zip(names, (users, accounts), strict=True):
                    await asyncio.to_thread(
                        system.docker,
                        *("network", "connect", f"--alias={name}", system.network, each["Id"]),
                    )
            await system.healthy()

        await nothing_is_lost(system, operator, load)


async def members(system: System, group: str, count: int) -> bool:
    """Whether a group has so many members, each with partitions."""
    security = KafkaSecurity.of(KafkaSettings())
    async with admin_client(system.kafka_bootstrap, security) as client:
        shares = await group_assignments(client, group)
    return len(shares) == count and all(shares.values())


async def killed(system: System, name: str) -> None:
    """Kill a process, and wait until its container was started again by itself and is healthy."""

    def restarts() -> int:
        return sum(each["RestartCount"] for each in system.containers(name))

    before = await asyncio.to_thread(restarts)
    await asyncio.to_thread(system.kill, name)

    async def again() -> bool:
        return await asyncio.to_thread(restarts) > before

    await eventually(again, within_s=60, every_s=1)
    await system.healthy(name)


async def unhealthy(system: System, names: tuple[str, ...]) -> None:
    async def are() -> bool:
        found = await asyncio.to_thread(system.containers, *names)
        return all(health_of(each) == "unhealthy" for each in found)

    await eventually(are, within_s=120, every_s=1)
