"""A topic gets more partitions only when all its events are handled and its relay is stopped."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError
from click.testing import CliRunner

from chassis.kafka.__main__ import main
from chassis.kafka.client import admin_client
from chassis.kafka.partitions import NotDrained, partition_bounds, raise_partitions
from chassis.kafka.topics import topic_states
from chassis.persistence.advisory_lock import try_lock
from chassis.persistence.database import Database
from chassis.persistence.outbox import Outbox, relay_lock_name
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from chassis.settings import KafkaSettings
from contracts.topics import Topic
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import (
    create_topic,
    publish,
    rows,
    signed_up,
    topic_of_its_own,
    transaction,
    utc_now,
)

SOME = 20


@pytest.fixture
async def topic(kafka: str) -> Topic:
    """A topic with some events and two partitions, for which the catalogue has four."""
    narrow = topic_of_its_own(2)
    await create_topic(kafka, narrow)
    await publish(kafka, narrow, [signed_up(uuid4(), 1) for _ in range(SOME)])
    return replace(narrow, partitions=4)


async def read_up_to(database: str, kafka: str, topic: Topic, missing: int = 0) -> None:
    """Set the progress of ``test.one`` to the end of the topic, but for some missing events."""
    left = missing
    for partition in range(await partitions_of(kafka, topic)):
        end = await end_of(kafka, topic, partition)
        unread, left = min(left, end), max(0, left - end)
        await rows(
            database,
            "INSERT INTO progress (subscriber, topic, topic_id, partition, next_offset, updated_at)"
            " VALUES ('test.one', $1, $2, $3, $4, now())",
            topic.name,
            UNKNOWN_TOPIC_ID,
            partition,
            end - unread,
        )


async def end_of(kafka: str, topic: Topic, partition: int) -> int:
    tp = TopicPartition(topic.name, partition)
    return (await partition_bounds(KafkaSettings(kafka_bootstrap=kafka), [tp]))[tp][1]


async def partitions_of(kafka: str, topic: Topic) -> int:
    async with admin_client(kafka) as client:
        state = (await topic_states(client, [topic.name]))[topic.name]
    assert state is not None
    return state.partitions


async def raised(database: str, kafka: str, topic: Topic) -> bool:
    return await raise_partitions(KafkaSettings(kafka_bootstrap=kafka), topic, {"test": database})


@pytest.mark.usefixtures("engine")
class TestRaising:
    async def test_a_drained_topic_gets_the_catalogues_number(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        await read_up_to(database, kafka, topic)

        assert await raised(database, kafka, topic)

        assert await partitions_of(kafka, topic) == 4

    async def test_a_topic_with_enough_partitions_is_not_changed(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        assert not await raised(database, kafka, replace(topic, partitions=2))
        assert not await raised(database, kafka, replace(topic, partitions=1))

        assert await partitions_of(kafka, topic) == 2

    async def test_a_missing_topic_is_an_error(self, database: str, kafka: str) -> None:
        with pytest.raises(UnknownTopicOrPartitionError):
            await raised(database, kafka, topic_of_its_own())

    async def test_a_topic_that_ends_with_the_marker_of_a_transaction_can_be_drained(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        async with transaction(kafka) as foreign:
            await foreign.send_and_wait(topic.name, b"x", partition=0)
        await read_up_to(database, kafka, topic)

        assert await raised(database, kafka, topic)


@pytest.mark.usefixtures("engine")
class TestRaisingIsRefused:
    async def test_while_a_subscriber_is_behind(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        await read_up_to(database, kafka, topic, missing=3)

        with pytest.raises(NotDrained, match=r"test\.one is 3 behind"):
            await raised(database, kafka, topic)

        assert await partitions_of(kafka, topic) == 2

    async def test_while_a_subscriber_is_held(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        await read_up_to(database, kafka, topic)
        await rows(database, "UPDATE progress SET held_because = 'it is' WHERE partition = 1")

        with pytest.raises(NotDrained, match=r"test\.one is held until an operator decides"):
            await raised(database, kafka, topic)

        assert await partitions_of(kafka, topic) == 2

    async def test_while_a_subscriber_has_not_begun_a_partition(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        await read_up_to(database, kafka, topic)
        await rows(database, "DELETE FROM progress WHERE partition = 1")

        with pytest.raises(NotDrained, match=r"test\.one is \d+ behind"):
            await raised(database, kafka, topic)

    async def test_while_a_consumer_has_never_read_it(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        with pytest.raises(NotDrained, match="test has never read it"):
            await raised(database, kafka, topic)

    async def test_while_events_wait_in_the_outbox(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        await read_up_to(database, kafka, topic)
        subject = uuid4()
        outbox = Outbox("/test", utc_now)
        outbox.append(
            UserSignedUpV1(user_id=subject, username="ada"),
            topic=topic,
            subject=subject,
            sequence=1,
            occurred_at=utc_now(),
        )
        async with engine.begin() as connection:
            await outbox.flush(connection)

        with pytest.raises(NotDrained, match="1 events wait in the outbox of test"):
            await raised(database, kafka, topic)

        assert await partitions_of(kafka, topic) == 2

    async def test_while_an_open_transaction_hides_records(
        self, database: str, kafka: str, topic: Topic
    ) -> None:
        await read_up_to(database, kafka, topic)
        async with transaction(kafka) as foreign:
            await foreign.send_and_wait(topic.name, b"x", partition=0)
            await publish(kafka, topic, [signed_up(uuid4(), 1)], partition=0)

            with pytest.raises(NotDrained, match="an open transaction hides 2 records"):
                await raised(database, kafka, topic)

        assert await partitions_of(kafka, topic) == 2

    async def test_while_a_relay_may_publish(self, database: str, kafka: str, topic: Topic) -> None:
        await read_up_to(database, kafka, topic)
        relay = await asyncpg.connect(database)
        try:
            assert await try_lock(relay, relay_lock_name("test"))

            with pytest.raises(NotDrained, match="the relay of test is at work"):
                await raised(database, kafka, topic)
        finally:
            await relay.close()

        assert await partitions_of(kafka, topic) == 2


class TestTheCommand:
    def test_names_the_databases_that_are_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("USERS_DATABASE_URL", "postgresql://127.0.0.1:1/users")
        monkeypatch.delenv("AUDIT_DATABASE_URL", raising=False)

        outcome = CliRunner().invoke(
            main, ["raise-partitions", "users.task", "--bootstrap", "127.0.0.1:1"]
        )

        assert outcome.exit_code == 2
        assert outcome.output == "not set: AUDIT_DATABASE_URL\n"

    def test_reads_a_database_from_a_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("USERS_DATABASE_URL", raising=False)
        monkeypatch.setenv("USERS_DATABASE_URL_FILE", str(tmp_path / "users"))
        (tmp_path / "users").write_text("postgresql://127.0.0.1:1/users\n")
        monkeypatch.delenv("AUDIT_DATABASE_URL", raising=False)

        outcome = CliRunner().invoke(
            main, ["raise-partitions", "users.task", "--bootstrap", "127.0.0.1:1"]
        )

        assert outcome.output == "not set: AUDIT_DATABASE_URL\n"
