"""What can't be read stops its partition only, and offsets without a record stop nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.record import default_records
from prometheus_client import REGISTRY

from chassis.consuming import careful_reading, positions
from chassis.consuming.dead_letters import headers_in
from chassis.consuming.offsets import begin
from chassis.consuming.skip_batch import (
    BatchEndNotKnown,
    BatchIsReadable,
    NotAtBatch,
    WrongBatchEnd,
    find_unreadable_batch,
    pass_over,
)
from chassis.consuming.subscribers import Start
from chassis.consuming.watchdog import WorkerStalled
from chassis.kafka.partitions import hidden_offsets, partition_bounds
from chassis.persistence.database import Database
from chassis.settings import KafkaSettings
from chassis.testing import eventually
from contracts.envelope import EncodedEvent
from contracts.topics import Topic
from local_cluster.testing import RunningInfrastructure
from tests.integration.chassis.path import (
    RunningWorker,
    consuming,
    count,
    create_topic,
    one_consuming,
    publish,
    rows,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
    transaction,
    until_reports,
    until_well,
    utc_now,
)
from tests.segments import break_the_length, flip_a_bit


@pytest.fixture
async def topic(own_kafka: RunningInfrastructure) -> Topic:
    """A topic of two partitions, each record a batch of its own: five in the first of them."""
    topic = topic_of_its_own(2)
    await create_topic(own_kafka.kafka_bootstrap, topic)
    await publish_one_by_one(own_kafka.kafka_bootstrap, topic, 5)
    return topic


@asynccontextmanager
async def consuming_on(
    database: str, kafka: str, engine: Database, topic: Topic
) -> AsyncIterator[RunningWorker]:
    """Have a worker whose one subscriber takes a topic, and whose process does not end."""
    try:
        async with one_consuming(database, kafka, engine, topic) as worker:
            yield worker
    except WorkerStalled as error:
        raise AssertionError("the process ends") from error


async def publish_one_by_one(kafka: str, topic: Topic, number: int, partition: int = 0) -> None:
    for _ in range(number):
        await publish(kafka, topic, [signed_up(uuid4(), 1)], partition)


async def until(database: str, topic: Topic, next_offset: int, partition: int = 0) -> None:
    """Wait until progress is there, and stays there."""

    async def is_there() -> bool:
        return await progress(database, topic, partition) == next_offset

    await eventually(is_there)


async def progress(database: str, topic: Topic, partition: int = 0) -> int | None:
    found = await rows(
        database,
        "SELECT next_offset FROM progress WHERE topic = $1 AND partition = $2",
        topic.name,
        partition,
    )
    return found[0]["next_offset"] if found else None


def metric(name: str, topic: Topic, partition: int = 0, **labels: str) -> float | None:
    of = {"topic": topic.name, "partition": str(partition), **labels}
    return REGISTRY.get_sample_value(name, of)


def lag(topic: Topic) -> float | None:
    return metric("consumer_lag", topic, subscriber="test.one")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(careful_reading, "_TRY_AGAIN_S", 0.1)
    monkeypatch.setattr(positions, "OPEN_FOR_LONG_S", 0.5)


class TestABatchWithAFlippedBit:
    async def test_stops_its_partition_there_and_nothing_else(
        self,
        database: str,
        engine: Database,
        own_kafka: RunningInfrastructure,
        topic: Topic,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(positions, "STUCK_AFTER_S", 1.0)
        kafka = own_kafka.kafka_bootstrap
        flip_a_bit(own_kafka.directory, topic.name, 0, 3)
        reason = f"{topic.name}[0] can't be read at offset 3: its CRC does not match"

        async with consuming_on(database, kafka, engine, topic) as worker:
            await until_reports(worker, reason)
            await publish_one_by_one(kafka, topic, 4, partition=1)
            await until(database, topic, 4, partition=1)
            stopped, _ = await asyncio.wait([worker.task], timeout=3)
            assert not stopped
            assert metric("consumer_given_up_offset", topic) == 3
            assert metric("consumer_given_up_offset", topic, 1) is None
        assert await progress(database, topic) == 3
        assert await count(database) == 7

        async with consuming_on(database, kafka, engine, topic) as worker:
            await until_reports(worker, reason)
        assert await count(database) == 7

    async def test_is_read_on_when_it_is_repaired(
        self,
        database: str,
        engine: Database,
        own_kafka: RunningInfrastructure,
        topic: Topic,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(careful_reading, "_LOOK_AGAIN_S", 0.5)
        flip_a_bit(own_kafka.directory, topic.name, 0, 3)

        async with consuming_on(database, own_kafka.kafka_bootstrap, engine, topic) as worker:
            await until_reports(worker, "can't be read at offset 3")

            flip_a_bit(own_kafka.directory, topic.name, 0, 3)

            await until(database, topic, 5)
            await until_well(worker)
            assert metric("consumer_given_up_offset", topic) is None

    async def test_is_passed_over_by_an_operator_while_the_worker_runs(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure, topic: Topic
    ) -> None:
        kafka = own_kafka.kafka_bootstrap
        flip_a_bit(own_kafka.directory, topic.name, 0, 3)

        async with consuming_on(database, kafka, engine, topic) as worker:
            await until_reports(worker, "can't be read at offset 3")

            await skip(engine, kafka, topic, 3)

            await until(database, topic, 5)
            await until_well(worker)
        assert await count(database) == 4
        [skipped] = await rows(database, "SELECT * FROM skipped_batches")
        assert (skipped["topic"], skipped["partition"]) == (topic.name, 0)
        assert (skipped["begin_offset"], skipped["end_offset"]) == (3, 4)
        assert b"users.user-signed-up.v1" in skipped["raw"]


class TestABatchThatTheBrokerItselfCannotRead:
    async def test_stops_its_partition_there_and_an_operator_has_to_say_where_it_ends(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure, topic: Topic
    ) -> None:
        kafka = own_kafka.kafka_bootstrap
        async with consuming_on(database, kafka, engine, topic):
            await until(database, topic, 5)
        await publish_one_by_one(kafka, topic, 2)
        break_the_length(own_kafka.directory, topic.name, 0, 5)

        async with consuming_on(database, kafka, engine, topic) as worker:
            await until_reports(worker, f"{topic.name}[0] can't be read at offset 5: ")
            await publish_one_by_one(kafka, topic, 1, partition=1)
            await until(database, topic, 1, partition=1)

        settings, tp = KafkaSettings(kafka_bootstrap=kafka), TopicPartition(topic.name, 0)
        with pytest.raises(BatchEndNotKnown):
            await find_unreadable_batch(settings, tp, 5)
        with pytest.raises(WrongBatchEnd):
            await find_unreadable_batch(settings, tp, 5, end=8)
        batch = await find_unreadable_batch(settings, tp, 5, end=7)
        assert (batch.begin, batch.end, batch.raw, batch.raw_sha256) == (5, 7, None, None)


class TestAReplay:
    async def test_stops_at_a_batch_that_can_not_be_read_and_goes_on_behind_it(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure, topic: Topic
    ) -> None:
        kafka = own_kafka.kafka_bootstrap
        sibling = subscriber("test.sibling", topic, starts=Start.NOW)
        async with engine.begin() as connection:
            await begin(connection, [sibling], topic.name, {0: (0, 5), 1: (0, 0)}, utc_now)
        both = [sibling, subscriber("test.one", topic)]
        await publish_one_by_one(kafka, topic, 1)
        flip_a_bit(own_kafka.directory, topic.name, 0, 2)
        settings = settings_for(database, kafka, replay_behind_events=2, chunk_max_events=1)

        async with consuming(settings, engine, both, service=topic.name) as worker:
            reason = f"test.one replays {topic.name}[0]: it can't be read at offset 2"
            await until_reports(worker, reason)
            assert await self._next_offsets(database) == {"test.sibling": 6, "test.one": 2}

            await skip(engine, kafka, topic, 2)

            async def all_is_handled() -> bool:
                return await self._next_offsets(database) == {"test.sibling": 6, "test.one": 6}

            await eventually(all_is_handled)
            await until_well(worker)
        assert await count(database) == 6

    async def _next_offsets(self, database: str) -> dict[str, int]:
        query = "SELECT subscriber, next_offset FROM progress WHERE partition = 0"
        return {row["subscriber"]: row["next_offset"] for row in await rows(database, query)}


class TestPassingOver:
    async def test_is_refused_for_what_can_be_read_or_is_not_there(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure, topic: Topic
    ) -> None:
        settings = KafkaSettings(kafka_bootstrap=own_kafka.kafka_bootstrap)
        tp = TopicPartition(topic.name, 0)
        flip_a_bit(own_kafka.directory, topic.name, 0, 3)

        with pytest.raises(BatchIsReadable):
            await find_unreadable_batch(settings, tp, 2)
        with pytest.raises(BatchIsReadable):
            await find_unreadable_batch(settings, tp, 5)
        with pytest.raises(NotAtBatch):
            await find_unreadable_batch(settings, tp, 50)
        with pytest.raises(WrongBatchEnd):
            await find_unreadable_batch(settings, tp, 3, end=5)

    async def test_moves_those_that_stand_there_only(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure, topic: Topic
    ) -> None:
        flip_a_bit(own_kafka.directory, topic.name, 0, 3)
        for name, offset, paused in (
            ("before", 2, None),
            ("there", 3, None),
            ("paused", 3, utc_now()),
            ("behind", 4, None),
            ("foreign", 3, None),
        ):
            await rows(
                database,
                "INSERT INTO progress (subscriber, topic, partition, next_offset, updated_at,"
                " paused_at, topic_id) VALUES ($1, $2, 0, $3, now(), $4, $5)",
                name,
                topic.name,
                offset,
                paused,
                UUID(int=7),
            )

        moved = await skip(
            engine,
            own_kafka.kafka_bootstrap,
            topic,
            3,
            subscribers=("before", "there", "paused", "behind"),
        )

        assert moved == ["paused", "there"]
        found = await rows(database, "SELECT subscriber, next_offset FROM progress")
        assert {row["subscriber"]: row["next_offset"] for row in found} == {
            "before": 2,
            "there": 4,
            "paused": 4,
            "behind": 4,
            "foreign": 3,
        }
        [skipped] = await rows(database, "SELECT topic_id FROM skipped_batches")
        assert skipped["topic_id"] == UUID(int=7)
        with pytest.raises(NotAtBatch):
            await skip(engine, own_kafka.kafka_bootstrap, topic, 3, subscribers=("there",))


async def skip(
    engine: Database,
    kafka: str,
    topic: Topic,
    offset: int,
    end: int | None = None,
    *,
    subscribers: Sequence[str] = ("test.one",),
) -> Sequence[str]:
    batch = await find_unreadable_batch(
        KafkaSettings(kafka_bootstrap=kafka), TopicPartition(topic.name, 0), offset, end
    )
    async with engine.begin() as connection:
        return await pass_over(connection, subscribers, batch, utc_now())


class _NotUtf8(str):
    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


async def publish_batch(kafka: str, topic: Topic, records: Sequence[dict[str, Any]]) -> None:
    """Publish records as one batch, also with headers that aiokafka would not write."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    batch = producer.create_batch()
    batch._builder = default_records._DefaultRecordBatchBuilderPy(
        2,
        0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=9_999,
    )
    for each in records:
        batch.append(**each, timestamp=None)
    await (await producer.send_batch(batch, topic.name, partition=0))
    await producer.stop()


def as_record(event: EncodedEvent, *more: tuple[str, bytes]) -> dict[str, Any]:
    return {
        "key": event.key,
        "value": event.payload,
        "headers": [*event.headers, *more],
    }


class TestAHeaderNameThatIsNotUtf8:
    async def test_parks_its_record_as_it_came_and_no_other_of_its_batch(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure, topic: Topic
    ) -> None:
        kafka = own_kafka.kafka_bootstrap
        events = [signed_up(uuid4(), 1) for _ in range(3)]
        odd = as_record(events[1], (_NotUtf8("x"), b"1"))
        await publish_batch(kafka, topic, [as_record(events[0]), odd, as_record(events[2])])
        await publish_one_by_one(kafka, topic, 2)
        await publish_one_by_one(kafka, topic, 2, partition=1)

        async with consuming_on(database, kafka, engine, topic) as worker:
            await until(database, topic, 10)
            await until(database, topic, 2, partition=1)
            await until_well(worker)

        parked = await rows(database, "SELECT * FROM parked")
        assert len(parked) == 1
        [kept] = parked
        assert (kept["offset"], kept["reason"]) == (6, "not-understood")
        assert (kept["key"], kept["payload"]) == (events[1].key, events[1].payload)
        *_, (name, value) = headers_in(json.loads(kept["headers"]))
        assert (name.encode("utf-8", "surrogateescape"), value) == (b"\xff\xfe", b"1")
        assert await count(database) == 11


class TestACodec:
    @pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
    async def test_is_read(self, database: str, engine: Database, kafka: str, codec: str) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic, **{"compression.type": codec})
        await publish(kafka, topic, [signed_up(uuid4(), 1) for _ in range(50)])

        async with consuming_on(database, kafka, engine, topic) as worker:
            await until(database, topic, 50)
            await until_well(worker)
        assert await count(database) == 50


class TestATransactionOfAnotherProducer:
    @pytest.mark.parametrize("between", ["running", "restarted"])
    async def test_leaves_a_marker_that_is_passed_over(
        self, database: str, engine: Database, kafka: str, between: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        if between == "running":
            async with consuming_on(database, kafka, engine, topic) as worker:
                await self._publish(kafka, topic)
                await self._is_well_at_the_end(database, topic, worker)
        else:
            await self._publish(kafka, topic)
            async with consuming_on(database, kafka, engine, topic) as worker:
                await self._is_well_at_the_end(database, topic, worker)
        assert await count(database) == 1

    async def _publish(self, kafka: str, topic: Topic) -> None:
        event = signed_up(uuid4(), 1)
        async with transaction(kafka) as producer:
            await producer.send_and_wait(
                topic.name, event.payload, event.key, headers=event.headers
            )

    async def _is_well_at_the_end(self, database: str, topic: Topic, worker: RunningWorker) -> None:
        await until(database, topic, 2)

        async def no_lag() -> bool:
            return lag(topic) == 0

        await eventually(no_lag)
        await until_well(worker)

    async def test_that_was_aborted_is_not_handled(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        async with consuming_on(database, kafka, engine, topic) as worker:
            async with transaction(kafka, commits=False) as producer:
                event = signed_up(uuid4(), 1)
                await producer.send_and_wait(
                    topic.name, event.payload, event.key, headers=event.headers
                )
            await until(database, topic, 2)
            await publish_one_by_one(kafka, topic, 1)
            await until(database, topic, 3)
            await until_well(worker)

        assert await count(database) == 1

    async def test_that_is_open_hides_what_follows_and_is_no_stall(
        self,
        database: str,
        engine: Database,
        kafka: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(positions, "STUCK_AFTER_S", 1.0)
        topic = topic_of_its_own(2)
        await create_topic(kafka, topic)
        await publish_one_by_one(kafka, topic, 1)
        settings, tp = KafkaSettings(kafka_bootstrap=kafka), TopicPartition(topic.name, 0)
        async with consuming_on(database, kafka, engine, topic) as worker:
            event = signed_up(uuid4(), 1)
            async with transaction(kafka) as producer:
                await producer.send_and_wait(
                    topic.name, event.payload, event.key, 0, headers=event.headers
                )
                await publish_one_by_one(kafka, topic, 2)
                await publish_one_by_one(kafka, topic, 2, partition=1)

                hides = f"an open transaction hides 3 records of {topic.name}[0] from offset 1 on"
                await until_reports(worker, hides)
                await until(database, topic, 2, partition=1)
                assert metric("consumer_hidden_offsets", topic) == 3
                assert lag(topic) == 0
                stopped, _ = await asyncio.wait([worker.task], timeout=3)
                assert not stopped
                assert await progress(database, topic) == 1
                assert await partition_bounds(settings, [tp]) == {tp: (0, 1)}
                assert await hidden_offsets(settings, [tp]) == {tp: 3}

            await until(database, topic, 5)
            await until_well(worker)
            assert metric("consumer_hidden_offsets", topic) is None

        assert await count(database) == 6

    async def test_that_is_open_hides_what_progress_had_passed_before(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        """As an older version of this worker, which read uncommitted records, left it."""
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        async with consuming_on(database, kafka, engine, topic) as worker:
            await until_well(worker)
        async with transaction(kafka) as producer:
            await producer.send_and_wait(topic.name, b"x", partition=0)
            await publish_one_by_one(kafka, topic, 1)
            await rows(database, "UPDATE progress SET next_offset = 2")

            async with consuming_on(database, kafka, engine, topic) as worker:
                await until_reports(worker, "an open transaction hides 2 records")
                assert await rows(database, "SELECT 1 FROM progress WHERE held_at > now()") == []
                await producer.commit_transaction()
                await producer.begin_transaction()
                await publish_one_by_one(kafka, topic, 1)
                await until(database, topic, 4)
