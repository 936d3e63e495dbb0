"""Chunks that are dropped, doubled or swapped on their way: nothing is lost and nothing doubled."""

import dataclasses
import itertools
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest

from chassis.consuming import chunk_thread, faust_transport
from chassis.consuming.chunk import Chunk, ChunkSource
from chassis.consuming.chunk_thread import ChunkThread, DeliveredChunk
from chassis.consuming.processor import ChunkProcessor
from chassis.persistence.database import Database
from chassis.testing import eventually
from tests.integration.chassis.path import (
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
)

Fetched = dict[TopicPartition, list[Chunk]]


class Misbehaving(ChunkThread):
    """Drops every 50th chunk, delivers every 70th twice, and every 110th after its successor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.drops = self.doubles = self.swaps = 0
        self.drop_next_of_each: set[TopicPartition] = set()
        self._numbers = itertools.count(1)
        self._held: dict[TopicPartition, Chunk] = {}

    async def _fetch(self, wanted: frozenset[Any]) -> Fetched:
        fetched = await super()._fetch(wanted)
        return {tp: kept for tp, [chunk] in fetched.items() if (kept := self._misbehave(tp, chunk))}

    def _misbehave(self, tp: TopicPartition, chunk: Chunk) -> list[Chunk]:
        if tp in self.drop_next_of_each:
            self.drop_next_of_each.discard(tp)
            return []
        if tp in self._held:
            self.swaps += 1
            return [chunk, again(self._held.pop(tp))]
        number = next(self._numbers)
        if number % 50 == 0:
            self.drops += 1
            return []
        if number % 70 == 0:
            self.doubles += 1
            return [chunk, again(chunk)]
        if number % 110 == 0:
            self._held[tp] = chunk
            return []
        return [chunk]


def again(chunk: Chunk) -> Chunk:
    """The same chunk, as if it were another record to Faust."""
    assert isinstance(chunk, DeliveredChunk)
    return dataclasses.replace(chunk, offset=next(chunk_thread._serial))


class TestATransportThatMisbehaves:
    async def test_loses_and_doubles_nothing_and_is_healed_soon(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: list[Misbehaving] = []

        def misbehaving(*arguments: Any, **options: Any) -> Misbehaving:
            threads.append(Misbehaving(*arguments, **options))
            return threads[-1]

        monkeypatch.setattr(faust_transport, "ChunkThread", misbehaving)
        refusals = Refusals(monkeypatch)
        topic = topic_of_its_own(8)
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(100)]
        settings = settings_for(database, kafka, chunk_max_events=3)

        async with consuming(settings, engine, [subscriber("test.one", topic)], service=topic.name):
            await publish(
                kafka,
                topic,
                [signed_up(each, number) for number in range(1, 21) for each in subjects],
            )

            async def all_are_handled() -> bool:
                return await count(database) >= 2_000

            await eventually(all_are_handled)
            [thread] = threads
            # The last of each partition: nothing follows that would betray that it is gone.
            thread.drop_next_of_each = {TopicPartition(topic.name, n) for n in range(8)}
            for partition in range(8):
                await publish(kafka, topic, [signed_up(uuid4(), 1)], partition)

            async def the_last_too() -> bool:
                return await count(database) >= 2_008

            await eventually(the_last_too)

        assert min(thread.drops, thread.doubles, thread.swaps) >= 3
        assert thread.drop_next_of_each == set()
        found = await rows(
            database,
            "SELECT subject, array_agg(sequence ORDER BY position) s FROM effects GROUP BY 1",
        )
        in_order = {row["subject"]: row["s"] for row in found}
        assert len(in_order) == len(subjects) + 8
        assert all(in_order[str(each)] == list(range(1, 21)) for each in subjects)
        assert await count(database) == 2_008
        assert await rows(database, "SELECT * FROM parked") == []
        assert await rows(database, "SELECT * FROM inbox_missing") == []
        assert await rows(database, "SELECT * FROM tries WHERE count > 0") == []
        # By the epoch rule a lost chunk is fetched again once, not once for each that follows it.
        assert refusals.count <= thread.drops + 2 * thread.swaps + 8


class TestAQuietConsumer:
    async def test_asks_less_often_until_a_record_comes(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits_ms: list[int] = []

        class Noting(ChunkThread):
            def _create_worker_consumer(self, transport: Any) -> Any:
                consumer = super()._create_worker_consumer(transport)
                send = consumer._client.send

                async def noting(node: int, request: Any, **options: Any) -> Any:
                    if isinstance(request, FetchRequest):
                        waits_ms.append(request._max_wait_ms)
                    return await send(node, request, **options)

                consumer._client.send = noting
                return consumer

        async def waits_long() -> bool:
            return waits_ms[-1:] == [chunk_thread._QUIET_WAIT_MS]

        async def waits_briefly() -> bool:
            return waits_ms[-1] == chunk_thread._FETCH_WAIT_MS

        async def is_handled() -> bool:
            return await count(database) == 1

        monkeypatch.setattr(faust_transport, "ChunkThread", Noting)
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        settings = settings_for(database, kafka)

        async with consuming(settings, engine, [subscriber("test.one", topic)], service=topic.name):
            await eventually(waits_long)
            await publish(kafka, topic, [signed_up(uuid4(), 1)])
            await eventually(waits_briefly)
            await eventually(is_handled)


class Refusals:
    """Counts how often a handler asked for a rewind that was granted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        rewind = ChunkThread._rewind

        async def count_rewind(
            thread: ChunkThread, tp: TopicPartition, offset: int, epoch: int
        ) -> None:
            before = thread.fetch_positions.get(tp)
            await rewind(thread, tp, offset, epoch)
            self.count += thread.fetch_positions.get(tp) != before

        monkeypatch.setattr(ChunkThread, "_rewind", count_rewind)


class TestALostTail:
    async def test_is_fetched_again_when_it_is_not_in_progress(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost: set[int] = set()
        handle = ChunkProcessor.process

        async def lose_once(
            consumer: ChunkProcessor[Any], chunk: Chunk, source: ChunkSource
        ) -> None:
            if chunk.partition in lost:
                await handle(consumer, chunk, source)
            lost.add(chunk.partition)

        monkeypatch.setattr(ChunkProcessor, "process", lose_once)
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)

        async with one_consuming(database, kafka, engine, topic):
            await publish(kafka, topic, [signed_up(uuid4(), 1)])

            async def it_is_handled() -> bool:
                return await count(database) == 1

            # Less than the 30 s after which a partition that stands still is read again anyway.
            await eventually(it_is_handled, within_s=25)
