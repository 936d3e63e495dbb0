"""Committed events reach Kafka complete and in order, whatever fails meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError
from sqlalchemy import text

from chassis.persistence import advisory_lock
from chassis.persistence.database import Connection, Database
from chassis.persistence.outbox import Outbox
from chassis.publishing import producer as producer_module
from chassis.publishing import relay as relay_module
from chassis.publishing.outbox_reader import Row
from chassis.publishing.producer import Batch, RowProducer, SendResult
from chassis.publishing.relay import Relay
from chassis.settings import ServiceSettings
from chassis.testing import eventually
from contracts.topics import Topic
from contracts.users import UserSignedUpV1
from local_cluster.testing import RunningInfrastructure
from tests.integration.chassis.path import (
    count,
    create_topic,
    rows,
    settings_for,
    topic_of_its_own,
    utc_now,
)
from tests.integration.chassis.proxy import postgres_through_proxy

YESTERDAY = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)


@asynccontextmanager
async def relaying(settings: ServiceSettings, service: str = "test") -> AsyncIterator[Relay]:
    relay = Relay(settings, service=service, now=utc_now)
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        await relay.stop()
        await asyncio.wait_for(task, 60)


def append(
    outbox: Outbox,
    topic: Topic,
    subject: UUID,
    sequence: int,
    name: str = "ada",
    versions: Mapping[int, int] | None = None,
) -> None:
    outbox.append(
        UserSignedUpV1.model_construct(user_id=subject, username=name),
        topic=topic,
        subject=subject,
        sequence=sequence,
        occurred_at=YESTERDAY,
        versions=versions,
    )


async def write_events(connection: Connection, topic: Topic, *events: tuple[UUID, int]) -> None:
    """Write events to the outbox, each given by its subject and sequence."""
    outbox = Outbox("/test", lambda: YESTERDAY)
    for subject, sequence in events:
        append(outbox, topic, subject, sequence)
    await outbox.flush(connection)


@dataclass(frozen=True)
class Published:
    subject: str
    sequence: int
    value: bytes
    headers: dict[str, bytes]
    timestamp: int


async def published(kafka: str, topic: Topic) -> list[Published]:
    """Return all records of the topic, each partition in its order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[Any] = []
        while len(found) < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    finally:
        await consumer.stop()
    return [
        Published(
            each.key.decode(),
            int(dict(each.headers)["sequence"]),
            each.value,
            dict(each.headers),
            each.timestamp,
        )
        for each in found
    ]


def in_order(found: Sequence[Published]) -> dict[str, list[int]]:
    """Return the sequences of each subject, in the order of the records and without repeats."""
    by_subject: dict[str, list[int]] = {}
    for each in found:
        numbers = by_subject.setdefault(each.subject, [])
        if each.sequence not in numbers:
            numbers.append(each.sequence)
    return by_subject


async def until_empty(database: str, *, within_s: float = 30) -> None:
    async def is_empty() -> bool:
        return await count(database, "outbox") == 0

    await eventually(is_empty, within_s=within_s)


class TestPublishing:
    async def test_sends_each_row_once_in_order_with_its_key_headers_bytes_and_time(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(4)
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(40)]
        events = [(subject, number) for number in range(1, 51) for subject in subjects]
        async with engine.begin() as connection:
            await write_events(connection, topic, *events)
        kept = await rows(database, "SELECT id, payload FROM outbox ORDER BY position")

        async with relaying(settings_for(database, kafka)):
            await until_empty(database)

        found = await published(kafka, topic)
        assert len(found) == 2_000
        assert in_order(found) == {str(subject): list(range(1, 51)) for subject in subjects}
        assert {each.value for each in found} == {row["payload"] for row in kept}
        assert {each.headers["id"].decode() for each in found} == {str(row["id"]) for row in kept}
        assert {each.timestamp for each in found} == {YESTERDAY.timestamp() * 1_000}

    async def test_a_commit_wakes_the_relay(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "_BUSY_SLEEP_S", 600)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with engine.begin() as connection:
            await write_events(connection, topic, (uuid4(), 1))
        sleepy = settings_for(database, kafka).model_copy(update={"relay_idle_s": 600})
        async with relaying(sleepy) as relay:
            await until_empty(database)
            async with engine.begin() as connection:
                await write_events(connection, topic, (uuid4(), 1))

            relay.wake()

            await until_empty(database)

    async def test_a_row_that_commits_late_is_not_skipped(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with relaying(settings_for(database, kafka)):
            async with engine.begin() as late:
                await write_events(late, topic, (uuid4(), 1))
                async with engine.begin() as connection:
                    await write_events(connection, topic, (uuid4(), 1))
                await until_empty(database)

            await until_empty(database)
        assert len(await published(kafka, topic)) == 2

    async def test_a_row_that_kafka_has_not_acknowledged_is_sent_again(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with engine.begin() as connection:
            await write_events(connection, topic, (uuid4(), 1))
        send = RowProducer.send

        async def lose_once(
            _producer: RowProducer, batches: Sequence[Batch]
        ) -> Sequence[SendResult]:
            monkeypatch.setattr(RowProducer, "send", send)
            return [(row, KafkaTimeoutError()) for batch in batches for row in batch.rows]

        monkeypatch.setattr(RowProducer, "send", lose_once)

        async with relaying(settings_for(database, kafka)):
            await until_empty(database)

        assert len(await published(kafka, topic)) == 1

    async def test_only_a_few_large_rows_are_fetched_at_once(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        outbox = Outbox("/test", utc_now)
        for _ in range(60):
            append(outbox, topic, uuid4(), 1, "x" * 500_000)
        async with engine.begin() as connection:
            await outbox.flush(connection)
        sizes: list[int] = []
        send = RowProducer.send

        async def note(producer: RowProducer, batches: Sequence[Batch]) -> Sequence[SendResult]:
            sizes.append(sum(len(row["payload"]) for batch in batches for row in batch.rows))
            return await send(producer, batches)

        monkeypatch.setattr(RowProducer, "send", note)

        async with relaying(settings_for(database, kafka)):
            await until_empty(database)

        assert len(await published(kafka, topic)) == 60
        assert max(sizes) < 10_000_000


class TestARefusedRow:
    async def test_is_set_aside_alone_and_its_aggregates_later_rows_wait_behind_it(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic, **{"max.message.bytes": "20000"})
        ada, others = uuid4(), [uuid4() for _ in range(20)]
        outbox = Outbox("/test", utc_now)
        for number in (1, 2, 3):
            for other in others[:10]:
                append(outbox, topic, other, number)
            append(outbox, topic, ada, number, "x" * (30_000 if number == 2 else 10))
            for other in others[10:]:
                append(outbox, topic, other, number)
        async with engine.begin() as connection:
            await outbox.flush(connection)

        async with relaying(settings_for(database, kafka)):

            async def only_ada_waits() -> bool:
                return await count(database, "outbox") == 1

            await eventually(only_ada_waits)
            async with engine.begin() as connection:
                await write_events(connection, topic, *((other, 4) for other in others), (ada, 4))

            async def only_ada_waits_again() -> bool:
                return await count(database, "outbox") == 2

            await eventually(only_ada_waits_again)

        found = in_order(await published(kafka, topic))
        assert found.pop(str(ada)) == [1]
        assert found == {str(other): [1, 2, 3, 4] for other in others}
        [aside] = await rows(database, "SELECT * FROM outbox_set_aside")
        assert (aside["aggregateid"], aside["sequence"]) == (str(ada), 2)
        assert aside["error_code"] == "MessageSizeTooLargeError"
        waiting = await rows(database, "SELECT sequence FROM outbox ORDER BY position")
        assert [row["sequence"] for row in waiting] == [3, 4]

    async def test_with_its_whole_first_batch_is_not_overtaken_by_the_second(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The first batch is too large for the topic, and the second is not.
        monkeypatch.setattr(producer_module, "_BATCH_BYTES", 30_000)
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic, **{"max.message.bytes": "20000"})
        ada, numbers = uuid4(), range(1, 46)
        async with engine.begin() as connection:
            await write_events(connection, topic, *((ada, number) for number in numbers))

        async with relaying(settings_for(database, kafka)):
            await until_empty(database)

        sequences = [each.sequence for each in await published(kafka, topic)]
        assert list(dict.fromkeys(sequences)) == list(numbers)


class TestATopicThatIsMissing:
    async def test_is_suspended_alone_until_it_exists(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        missing, there = topic_of_its_own(), topic_of_its_own()
        await create_topic(kafka, there)
        async with engine.begin() as connection:
            await write_events(connection, missing, (uuid4(), 1))
            await write_events(connection, there, *((uuid4(), 1) for _ in range(10)))

        async with relaying(settings_for(database, kafka)) as relay:

            async def only_the_missing_topic_waits() -> bool:
                return await count(database, "outbox") == 1

            await eventually(only_the_missing_topic_waits)

            async def is_reported() -> bool:
                return missing.name in (relay.trouble() or "")

            await eventually(is_reported)
            await create_topic(kafka, missing)
            await until_empty(database)

            async def relay_is_well() -> bool:
                return relay.trouble() is None

            await eventually(relay_is_well)
        assert len(await published(kafka, missing)) == 1


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> list[RowProducer]:
    """The producer of each send; all are slow, so two relays at work would read the same rows."""
    senders: list[RowProducer] = []
    send = RowProducer.send

    async def send_slowly(producer: RowProducer, batches: Sequence[Batch]) -> Sequence[SendResult]:
        senders.append(producer)
        await asyncio.sleep(0.5)
        return await send(producer, batches)

    monkeypatch.setattr(RowProducer, "send", send_slowly)
    return senders


class TestTwoRelays:
    async def test_never_work_at_once(
        self, database: str, engine: Database, kafka: str, senders: list[RowProducer]
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        settings = settings_for(database, kafka)
        async with relaying(settings) as one, relaying(settings) as other:

            async def both_are_up() -> bool:
                return one.trouble() is None and other.trouble() is None

            await eventually(both_are_up)
            async with engine.begin() as connection:
                await write_events(connection, topic, (uuid4(), 1))
            await until_empty(database)

        assert len(senders) == 1
        assert len(await published(kafka, topic)) == 1

    async def test_one_that_lost_its_lock_sends_nothing_more(
        self, database: str, engine: Database, kafka: str, senders: list[RowProducer]
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        settings = settings_for(database, kafka)
        async with relaying(settings), relaying(settings):
            async with engine.begin() as connection:
                await write_events(connection, topic, (uuid4(), 1))
            await until_empty(database)
            before = await self._holders(database)
            await self._cut(database)

            async def the_other_relay_has_the_lock() -> bool:
                return await self._holders(database) not in ([], before)

            await eventually(the_other_relay_has_the_lock)
            async with engine.begin() as connection:
                await write_events(connection, topic, (uuid4(), 1))
            await until_empty(database)

        cut_off, *after = senders
        assert cut_off not in after
        assert len(await published(kafka, topic)) == 2

    async def test_one_works_and_the_other_takes_over(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        settings = settings_for(database, kafka)
        ada = uuid4()
        async with relaying(settings):
            async with engine.begin() as connection:
                await write_events(connection, topic, (ada, 1))
            await until_empty(database)
            async with relaying(settings):
                holders = await self._holders(database)
                assert len(holders) == 1
                for number in range(2, 6):
                    # The relay that has the lock loses its connection, each time.
                    await self._cut(database)
                    async with engine.begin() as connection:
                        await write_events(connection, topic, (ada, number))
                    await until_empty(database)

        assert in_order(await published(kafka, topic)) == {str(ada): [1, 2, 3, 4, 5]}

    async def _holders(self, database: str) -> list[int]:
        found = await rows(
            database,
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        return [row["pid"] for row in found]

    async def _cut(self, database: str) -> None:
        for pid in await self._holders(database):
            await rows(database, "SELECT pg_terminate_backend($1)", pid)

    async def test_a_commit_does_not_make_the_standby_ask_for_the_lock_more_often(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = settings_for(database, kafka)
        tries = 0

        async def count_tries(*arguments: Any) -> bool:
            nonlocal tries
            tries += 1
            return await advisory_lock.try_lock(*arguments)

        async with relaying(settings):

            async def is_held() -> bool:
                return len(await self._holders(database)) == 1

            await eventually(is_held)
            monkeypatch.setattr(relay_module, "try_lock", count_tries)
            async with relaying(settings) as standing_by:

                async def has_tried() -> bool:
                    standing_by.wake()
                    return tries >= 2

                began = asyncio.get_running_loop().time()
                await eventually(has_tried, every_s=0.01)
                waited = asyncio.get_running_loop().time() - began

        assert waited > 0.4


class TestADatabaseThatIsAway:
    async def test_is_waited_for_and_reported(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        ada = uuid4()
        async with (
            postgres_through_proxy(database) as (url, proxy),
            relaying(settings_for(url, kafka)) as relay,
        ):
            for number in range(1, 4):
                await proxy.refuse()
                async with engine.begin() as connection:
                    await write_events(connection, topic, (ada, number))

                async def is_reported() -> bool:
                    return "the database is away" in (relay.trouble() or "")

                await eventually(is_reported)
                await proxy.accept()
                await until_empty(database)

        assert in_order(await published(kafka, topic)) == {str(ada): [1, 2, 3]}

    async def test_between_acknowledgement_and_delete_makes_a_repeat_and_no_loss(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        ada = uuid4()
        async with engine.begin() as connection:
            await write_events(connection, topic, (ada, 1), (ada, 2))
        async with postgres_through_proxy(database) as (url, proxy):
            about_to_delete = cut = False

            async def look(point: str) -> None:
                nonlocal about_to_delete
                about_to_delete |= point == "relay.before-delete"

            async def cut_the_delete_once(_data: bytes) -> bool:
                nonlocal cut
                if cut or not about_to_delete:
                    return True
                cut = True
                return False

            monkeypatch.setattr(relay_module, "failpoint", look)
            proxy.on_request = cut_the_delete_once

            async with relaying(settings_for(url, kafka)):
                await until_empty(database)

        assert cut
        found = await published(kafka, topic)
        sequences = [each.sequence for each in found]
        assert sequences in ([1, 1, 2], [1, 2, 1, 2])
        assert len({each.headers["id"] for each in found}) == 2


class TestKafkaThatIsAway:
    async def test_a_future_that_the_client_cancels_does_not_end_the_relay(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        send = RowProducer.send

        async def cancel_once(_producer: RowProducer, _rows: Sequence[Row]) -> Sequence[SendResult]:
            monkeypatch.setattr(RowProducer, "send", send)
            future: asyncio.Future[Sequence[SendResult]] = (
                asyncio.get_running_loop().create_future()
            )
            future.cancel()
            return await future

        monkeypatch.setattr(RowProducer, "send", cancel_once)
        async with engine.begin() as connection:
            await write_events(connection, topic, (uuid4(), 1))

        async with relaying(settings_for(database, kafka)):
            await until_empty(database)

        assert len(await published(kafka, topic)) == 1

    async def test_and_frozen_is_reported_and_nothing_is_lost_or_out_of_order(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure
    ) -> None:
        kafka, topic, ada = own_kafka.kafka_bootstrap, topic_of_its_own(), uuid4()
        await create_topic(kafka, topic)
        before = asyncio.all_tasks()
        async with relaying(settings_for(database, kafka)) as relay:
            async with engine.begin() as connection:
                await write_events(connection, topic, (ada, 1))
            await until_empty(database)
            own_kafka.kill("kafka", signal.SIGSTOP)
            try:
                async with engine.begin() as connection:
                    await write_events(
                        connection, topic, *((ada, number) for number in range(2, 52))
                    )

                async def is_reported() -> bool:
                    return "Kafka does not take records" in (relay.trouble() or "")

                await eventually(is_reported)
            finally:
                own_kafka.kill("kafka", signal.SIGCONT)
            await until_empty(database)

            async def relay_is_well() -> bool:
                return relay.trouble() is None

            await eventually(relay_is_well)
        assert in_order(await published(kafka, topic)) == {str(ada): list(range(1, 52))}
        assert asyncio.all_tasks() == before

    async def test_does_not_keep_the_relay_from_stopping_and_leaves_no_task_running(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure
    ) -> None:
        kafka, topic = own_kafka.kafka_bootstrap, topic_of_its_own()
        await create_topic(kafka, topic)
        before = asyncio.all_tasks()
        async with relaying(settings_for(database, kafka)) as relay:
            async with engine.begin() as connection:
                await write_events(connection, topic, (uuid4(), 1))
            await until_empty(database)
            own_kafka.stop("kafka")
            try:
                async with engine.begin() as connection:
                    await write_events(connection, topic, (uuid4(), 1))

                async def is_reported() -> bool:
                    return "Kafka does not take records" in (relay.trouble() or "")

                await eventually(is_reported)
                await relay.stop()
            finally:
                own_kafka.resume("kafka")
        assert asyncio.all_tasks() == before
        assert await count(database, "outbox") == 1


class TestAnUnexpectedError:
    async def test_ends_the_relay(self, database: str, engine: Database, kafka: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE outbox"))
        relay = Relay(settings_for(database, kafka), service="test", now=utc_now)

        with pytest.raises(asyncpg.UndefinedTableError):
            await asyncio.wait_for(relay.run(), 20)
