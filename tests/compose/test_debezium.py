"""compose.debezium.yml: Debezium publishes in the relay's place, and loses nothing."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from chassis.testing import eventually
from contracts.envelope import decode
from contracts.topics import USERS_USER
from local_cluster.kafka_artifacts import jars, read_lock
from local_cluster.settings import Settings
from tests.compose.outcome import have_accounts, until_promised
from tests.compose.system import ALONE, Files, System, running_system
from tests.e2e.people import Operator
from tests.faults.workload import Workload

pytestmark = pytest.mark.timeout(900)

_LOCK: Final = Path(__file__).with_name("debezium.lock")


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Every container, healthy, without relays."""
    connector = Settings().cache_directory / "debezium"
    for jar in jars(connector, lambda _: None, read_lock(_LOCK)):
        jar.chmod(0o644)  # Kafka Connect is another user
    connector.chmod(0o755)
    os.environ["DEBEZIUM_CONNECTOR"] = str(connector)
    with running_system(Files([*ALONE.names, "compose.debezium.yml"], ALONE.brokers)) as running:
        yield running


class TestEvents:
    async def test_are_published_as_the_relay_would_also_those_of_an_outage_of_debezium(
        self, system: System, operator: Operator
    ) -> None:
        load = Workload(system.gateway_url)

        async with load.at(per_second=3):
            await asyncio.to_thread(system.compose, "kill", "debezium")
            await until_promised(load, 10)
            again = ("up", "--wait", "--no-deps", "--no-recreate", "debezium")
            await asyncio.to_thread(system.compose, *again)

        await have_accounts(operator, load)
        # What Debezium has not read yet is nowhere to be seen.
        await eventually(lambda: asyncio.to_thread(is_verified, system), within_s=240, every_s=5)
        published = await records(system, USERS_USER.name)
        assert {str(each) for each in load.promised} <= {each.key.decode() for each in published}
        partitions = list(range(USERS_USER.partitions))
        by_key = DefaultPartitioner()
        for each in published:
            envelope = decode(each.value)
            assert each.key == envelope.subject.encode()
            assert each.partition == by_key(each.key, partitions, partitions)
            assert "content-type" not in dict(each.headers)

    async def test_are_published_after_postgresql_was_started_anew(
        self, system: System, operator: Operator
    ) -> None:
        await asyncio.to_thread(system.compose, "restart", "postgres")
        load = Workload(system.gateway_url)

        async with load.at(per_second=3):
            await until_promised(load, 10, within_s=120)

        await have_accounts(operator, load)

    async def test_that_are_rare_in_a_database_do_not_make_the_log_grow(
        self, system: System
    ) -> None:
        end = psql(system, "SELECT pg_current_wal_lsn()")
        behind = f"SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn < '{end}'"  # noqa: S608

        async def is_read() -> bool:
            return await asyncio.to_thread(psql, system, behind) == "0"

        await eventually(is_read, within_s=120, every_s=2)


def psql(system: System, query: str) -> str:
    command = ("psql", "--username=postgres", "--tuples-only", "--no-align", f"--command={query}")
    return system.compose("exec", "-T", "postgres", *command).strip()


def is_verified(system: System) -> bool:
    try:
        return "nothing is lost" in system.verify()
    except AssertionError:
        return False


async def records(system: System, topic: str) -> list[Any]:
    """Return all records of the topic."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=system.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, n) for n in range(USERS_USER.partitions)])
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[Any] = []
        while len(found) < sum(ends.values()):
            for some in (await consumer.getmany(timeout_ms=200)).values():
                found += some
        return found
    finally:
        await consumer.stop()
