"""A transport that misbehaves: what it does to a chunk is healed before anybody waits for it."""

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
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.consuming import faust_transport
from chassis.consuming.chunk import Chunk
from chassis.consuming.faust_transport import ChunkThread, DeliveredChunk
from chassis.consuming.positions import TAIL_LOST_AFTER_S
from chassis.testing import eventually
from contracts.topics import Topic
from tests.faults.measured import report
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

HEALED_WITHIN_S: Final = 0.5
LAST_HEALED_WITHIN_S: Final = 6.0

_TIMES: Final = 20
_CHUNKS_UNTIL_HEALED: Final = 5
_PARTITIONS: Final = 4

Fetched = dict[TopicPartition, list[Chunk]]


class Fault(StrEnum):
    """What can become of a chunk."""

    DROPPED = "dropped"
    DOUBLED = "doubled"
    SWAPPED = "swapped"


@dataclass(frozen=True, slots=True)
class Befallen:
    """A chunk that something was done to, and when."""

    chunk: Chunk
    at: float


class Switched(ChunkThread):
    """Does to the next chunk of a partition what it was switched to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.befallen: list[Befallen] = []
        self._switched: dict[TopicPartition, Fault | None] = {}
        self._held: dict[TopicPartition, Chunk] = {}

    def switch(self, fault: Fault | None, *partitions: TopicPartition) -> None:
        self._switched |= dict.fromkeys(partitions, fault)

    async def _fetch(self, wanted: frozenset[Any]) -> Fetched:
        fetched = await super()._fetch(wanted)
        return {tp: kept for tp, [chunk] in fetched.items() if (kept := self._misbehave(tp, chunk))}

    def _misbehave(self, tp: TopicPartition, chunk: Chunk) -> list[Chunk]:
        if tp in self._held:
            return [chunk, again(self._held.pop(tp))]
        if tp not in self._switched:
            return [chunk]
        fault = self._switched.pop(tp)
        self.befallen.append(Befallen(chunk, time.monotonic()))
        if fault is Fault.SWAPPED:
            self._held[tp] = chunk
        if fault is Fault.DOUBLED:
            return [chunk, again(chunk)]
        return [chunk] if fault is None else []


def again(chunk: Chunk) -> Chunk:
    """The same chunk, as if it were another record to Faust."""
    assert isinstance(chunk, DeliveredChunk)
    return dataclasses.replace(chunk, offset=next(faust_transport._serial))


@dataclass(frozen=True)
class Path:
    """A consumer whose transport has a switch."""

    database: str
    kafka: str
    topic: Topic
    thread: Switched
    progress: asyncpg.Connection

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic.name, number) for number in range(_PARTITIONS)]

    async def healed_after_s(self, befallen: Befallen) -> float:
        """Wait until what befell a chunk is past; return how long that took."""

        async def is_done() -> bool:
            done: int = await self.progress.fetchval(
                "SELECT next_offset FROM progress WHERE partition = $1", befallen.chunk.partition
            )
            return done >= befallen.chunk.end

        await eventually(is_done, every_s=0.005)
        return time.monotonic() - befallen.at


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    async with schema(database) as engine:
        yield engine


@pytest.fixture
async def path(
    database: str, engine: AsyncEngine, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Path]:
    threads: list[Switched] = []

    def switched(*arguments: Any, **options: Any) -> Switched:
        threads.append(Switched(*arguments, **options))
        return threads[-1]

    monkeypatch.setattr(faust_transport, "ChunkThread", switched)
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
    async def so_many() -> bool:
        return await count(database) >= number

    return so_many


class TestATransportThatMisbehaves:
    @pytest.mark.parametrize("fault", Fault)
    async def test_is_healed_before_anybody_waits(self, path: Path, fault: Fault) -> None:
        subjects = [uuid4() for _ in range(_PARTITIONS)]
        sending = asyncio.create_task(publish_for_ever(path, subjects))

        undisturbed_s = await healed_after_s(path, None)
        took_s = await healed_after_s(path, fault)

        sending.cancel()
        await asyncio.wait([sending])
        published = await ends(path)
        await eventually(has_handled(path.database, published))
        report(f"healed after a chunk was {fault.value}", took_s, bound=HEALED_WITHIN_S)
        # A busy machine is as late with chunks that nothing befalls; it takes a few to be healed.
        late_s = _CHUNKS_UNTIL_HEALED * statistics.median(undisturbed_s)
        assert statistics.median(took_s) < max(HEALED_WITHIN_S, late_s), (took_s, undisturbed_s)
        # And none ever waits for the watchdog.
        assert max(took_s) < TAIL_LOST_AFTER_S, took_s
        assert await count(path.database) == published
        await assert_all_in_order(path)

    async def test_finds_a_lost_last_chunk_too(self, path: Path) -> None:
        path.thread.switch(Fault.DROPPED, *path.partitions)

        for partition in range(_PARTITIONS):
            await publish(path.kafka, path.topic, [signed_up(uuid4(), 1)], partition)

        await eventually(befell(path.thread, _PARTITIONS))
        took_s = [await path.healed_after_s(each) for each in path.thread.befallen]
        report("healed after the last was dropped", took_s, bound=LAST_HEALED_WITHIN_S)
        assert max(took_s) < LAST_HEALED_WITHIN_S, took_s
        assert await count(path.database) == 2 * _PARTITIONS


async def healed_after_s(path: Path, fault: Fault | None) -> list[float]:
    """Let a fault befall one chunk after the other; return how long each took until it was done."""
    took_s: list[float] = []
    for number in range(_TIMES):
        before = len(path.thread.befallen)
        path.thread.switch(fault, path.partitions[number % _PARTITIONS])
        await eventually(befell(path.thread, before + 1), every_s=0.005)
        took_s.append(await path.healed_after_s(path.thread.befallen[-1]))
    return took_s


def befell(thread: Switched, number: int) -> Callable[[], Any]:
    async def so_many() -> bool:
        return len(thread.befallen) >= number

    return so_many


async def publish_for_ever(path: Path, subjects: list[UUID]) -> None:
    """Publish an event of each subject, each to its own partition, over and over."""
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


async def ends(path: Path) -> int:
    """Return how many records the topic has."""
    consumer = AIOKafkaConsumer(bootstrap_servers=path.kafka)
    await consumer.start()
    try:
        return sum((await consumer.end_offsets(path.partitions)).values())
    finally:
        await consumer.stop()


async def assert_all_in_order(path: Path) -> None:
    """Everything was handled once, in the order of its subject."""
    found = await rows(
        path.database,
        "SELECT array_agg(sequence ORDER BY position) AS numbers FROM effects GROUP BY subject",
    )
    for row in found:
        assert row["numbers"] == list(range(1, len(row["numbers"]) + 1))
    for table in ("parked", "inbox_missing"):
        assert await count(path.database, table) == 0
    assert await rows(path.database, "SELECT * FROM tries WHERE count > 0") == []
