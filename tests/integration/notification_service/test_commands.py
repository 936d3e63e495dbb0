"""The operators' commands for deliveries, run as processes."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from chassis.persistence.database import Database
from local_cluster.settings import REPOSITORY
from notification_service.deliveries import State
from tests.unit.notification_service.delivery_queue_suite import claim
from tests.unit.notification_service.making import after, planned

from .test_postgres_deliveries import PostgresBench


@pytest.fixture(autouse=True)
def _settings(notification_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": notification_database,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "JWKS_URL": "http://127.0.0.1:1/jwks.json",
        "IDEMPOTENCY_SECRET": "s" * 32,
        "ENVIRONMENT": "development",
    }.items():
        monkeypatch.setenv(f"NOTIFICATION_{name}", value)


def deliveries(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "notification_service", "deliveries", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )


async def test_the_commands_on_the_page_retry_a_delivery(engine: Database) -> None:
    bench, delivery = PostgresBench(engine), planned()
    await bench.plan(delivery)
    (claimed,) = await claim(bench)
    await bench.queue.failed(claimed, "channel_not_found", after(1))
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    lines = re.findall(r"^python -m notification_service deliveries (.+)$", page, re.MULTILINE)

    for line in lines:
        done = deliveries(*shlex.split(line.replace("$ID", str(delivery.id))))
        assert done.returncode == 0, done.stderr

    assert (await bench.see(delivery.id)).state is State.PENDING


async def test_a_failed_delivery_is_listed_and_retried_once(engine: Database) -> None:
    bench, delivery = PostgresBench(engine), planned()
    await bench.plan(delivery, planned())
    (claimed,) = await claim(bench, limit=1)
    await bench.queue.failed(claimed, "channel_not_found", after(1))

    as_table = deliveries("list", "--state", "failed")
    as_json = deliveries("list", "--state", "failed", "--json")
    done = deliveries("retry", claimed.id, "--why", "the channel is there")
    again = deliveries("retry", claimed.id, "--why", "the channel is there")

    head, line = as_table.stdout.splitlines()
    assert head.split()[:3] == ["ID", "RULE", "STATE"]
    assert line.split()[:3] == [str(claimed.id), "slack-growth-user-signed-up", "failed"]
    assert [each["id"] for each in json.loads(as_json.stdout)["deliveries"]] == [str(claimed.id)]
    assert (done.returncode, done.stdout) == (0, "it is sent again\n")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("not-failed: ")
    assert (await bench.see(claimed.id)).state is State.PENDING
