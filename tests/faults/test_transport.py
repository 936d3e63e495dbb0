"""A transport that loses, repeats or swaps chunks: the consumer recovers quickly."""

import asyncio
import dataclasses
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chassis.consuming import chunk_thread, faust_transport
from chassis.consuming.chunk import Chunk
from chassis.consuming.chunk_thread import ChunkThread, DeliveredChunk
from chassis.consuming.positions import TAIL_LOST_AFTER_S
from chassis.persistence.database import Database
from chassis.testing import eventually
from contracts.topics import Topic
from tests.faults.measured import print_measured
from tests.integration.chassis.path import (
    consuming,
    count,
    create_topic,
    publish,
    rows,
    schema,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
)

RECOVERS_WITHIN_S: Final = 0.5
LAST_RECOVERS_WITHIN_S: Final = 6.0

_TIMES: Final = 20
_CHUNKS_UNTIL_RECOVERED: Final = 5
_PARTITIONS: Final = 4

Fetched = dict[TopicPartition, list[Chunk]]


class Fault(StrEnum):
    """A fault of a chunk's delivery."""

    DROPPED = "dropped"
    DOUBLED = "doubled"
    SWAPPED = "swapped"


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """The chunk that had a fault, and when."""

    chunk: Chunk
    at: float


class FaultyThread(ChunkThread):
    """Applies a fault to the next chunk of a partition."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.injected: list[InjectedFault] = []
        self._faults: dict[TopicPartition, Fault | None] = {}
        self._held: dict[TopicPartition, Chunk] = {}

    def inject(self, fault: Fault | None, *partitions: TopicPartition) -> None:
        self._faults |= dict.fromkeys(partitions, fault)

    async def _fetch(self, wanted: frozenset[Any]) -> Fetched:
        fetched = await super()._fetch(wanted)
        return {
            tp: kept for tp, [chunk] in fetched.items() if (kept := self._apply_fault(tp, chunk))
        }

    def _apply_fault(self, tp: TopicPartition, chunk: Chunk) -> list[Chunk]:
        if tp in self._held:
            return [chunk, repeated(self._held.pop(tp))]
        if tp not in self._faults:
            return [chunk]
        fault = self._faults.pop(tp)
        self.injected.append(InjectedFault(chunk, time.monotonic()))
        if fault is Fault.SWAPPED:
            self._held[tp] = chunk
        if fault is Fault.DOUBLED:
            return [chunk, repeated(chunk)]
        return [chunk] if fault is None else []


def repeated(chunk: Chunk) -> Chunk:
    """The same chunk, which Faust takes for another record."""
    assert isinstance(chunk, DeliveredChunk)
    return dataclasses.replace(chunk, offset=next(chunk_thread._serial))


@dataclass(frozen=True)
class Path:
    """A consumer with a faulty transport."""

    database: str
    kafka: str
    topic: Topic
    thread: FaultyThread
    progress: asyncpg.Connection

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic.name, number) for number in range(_PARTITIONS)]

    async def recovered_after_s(self, fault: InjectedFault) -> float:
        """Wait until the chunk of a fault is handled; return how long that took."""

        async def is_done() -> bool:
            next_offset: int = await self.progress.fetchval(
                "SELECT next_offset FROM progress WHERE partition = $1", fault.chunk.partition
            )
            return next_offset >= fault.chunk.end

        await eventually(is_done, every_s=0.005)
        return time.monotonic() - fault.at


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    async with schema(database) as engine:
        yield engine


@pytest.fixture
async def path(
    database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Path]:
    threads: list[FaultyThread] = []

    def faulty_thread(*arguments: Any, **options: Any) -> FaultyThread:
        threads.append(FaultyThread(*arguments, **options))
        return threads[-1]

    monkeypatch.setattr(faust_transport, "ChunkThread", faulty_thread)
    topic = topic_of_its_own(_PARTITIONS)
    await create_topic(kafka, topic)
    progress = await asyncpg.connect(database)
    settings = settings_for(database, kafka)
    async with consuming(settings, engine, [subscriber("test.one", topic)], service=topic.name):
        for partition in range(_PARTITIONS):
            await publish(kafka, topic, [signed_up(uuid4(), 1)], partition)
        await eventually(has_handled(database, _PARTITIONS))
        [thread] = threads
        yield Path(database, kafka, topic, thread, progress)
    await progress.close()


def has_handled(database: str, number: int) -> Callable[[], Any]:
    async def are_handled() -> bool:
        return await count(database) >= number

    return are_handled


class TestAFaultyTransport:
    @pytest.mark.parametrize("fault", Fault)
    async def test_delays_a_chunk_for_a_short_time_only(self, path: Path, fault: Fault) -> None:
        subjects = [uuid4() for _ in range(_PARTITIONS)]
        sending = asyncio.create_task(publish_until_cancelled(path, subjects))

        without_fault_s = await recovered_after_s(path, None)
        took_s = await recovered_after_s(path, fault)

        sending.cancel()
        await asyncio.wait([sending])
        published = await records_on(path)
        await eventually(has_handled(path.database, published))
        print_measured(
            f"recovered after a chunk was {fault.value}", took_s, bound=RECOVERS_WITHIN_S
        )
        # On a busy machine chunks without a fault are late too, and recovery takes a few chunks.
        late_s = _CHUNKS_UNTIL_RECOVERED * statistics.median(without_fault_s)
        assert statistics.median(took_s) < max(RECOVERS_WITHIN_S, late_s), (
            took_s,
            without_fault_s,
        )
        # And none waits for the watchdog.
        assert max(took_s) < TAIL_LOST_AFTER_S, took_s
        assert await count(path.database) == published
        await assert_all_in_order(path)

    async def test_that_loses_the_last_chunk_is_noticed(self, path: Path) -> None:
        path.thread.inject(Fault.DROPPED, *path.partitions)

        for partition in range(_PARTITIONS):
            await publish(path.kafka, path.topic, [signed_up(uuid4(), 1)], partition)

        await eventually(has_injected(path.thread, _PARTITIONS))
        took_s = [await path.recovered_after_s(each) for each in path.thread.injected]
        print_measured("recovered after the last was dropped", took_s, bound=LAST_RECOVERS_WITHIN_S)
        assert max(took_s) < LAST_RECOVERS_WITHIN_S, took_s
        assert await count(path.database) == 2 * _PARTITIONS


async def recovered_after_s(path: Path, fault: Fault | None) -> list[float]:
    """Apply a fault to one chunk after the other; return how long each took to be handled."""
    took_s: list[float] = []
    for number in range(_TIMES):
        before = len(path.thread.injected)
        path.thread.inject(fault, path.partitions[number % _PARTITIONS])
        await eventually(has_injected(path.thread, before + 1), every_s=0.005)
        took_s.append(await path.recovered_after_s(path.thread.injected[-1]))
    return took_s


def has_injected(thread: FaultyThread, number: int) -> Callable[[], Any]:
    async def has() -> bool:
        return len(thread.injected) >= number

    return has


async def publish_until_cancelled(path: Path, subjects: list[UUID]) -> None:
    """Publish an event of each subject, each to its own partition, until cancelled."""
    producer = AIOKafkaProducer(bootstrap_servers=path.kafka, enable_idempotence=True)
    await producer.start()
    try:
        number = 0
        while True:
            number += 1
            for partition, subject in enumerate(subjects):
                event = signed_up(subject, number)
                await producer.send(
                    path.topic.name, event.payload, event.key, partition, headers=event.headers
                )
            await asyncio.sleep(0.02)
    finally:
        await producer.stop()


async def records_on(path: Path) -> int:
    """Return how many records the topic has."""
    consumer = AIOKafkaConsumer(bootstrap_servers=path.kafka)
    await consumer.start()
    try:
        return sum((await consumer.end_offsets(path.partitions)).values())
    finally:
        await consumer.stop()


async def assert_all_in_order(path: Path) -> None:
    """Assert that every event was handled once, in the order of its subject."""
    found = await rows(
        path.database,
        "SELECT array_agg(sequence ORDER BY position) AS numbers FROM effects GROUP BY subject",
    )
    for row in found:
        assert row["numbers"] == list(range(1, len(row["numbers"]) + 1))
    for table in ("parked", "inbox_missing"):
        assert await count(path.database, table) == 0
    assert await rows(path.database, "SELECT * FROM tries WHERE count > 0") == []
