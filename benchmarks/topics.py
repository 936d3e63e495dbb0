"""Topics that figures are measured on, and how fast records arrive in one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic

from benchmarks.bench import PARTITIONS, Bench
from chassis.kafka.client import admin_client

_LOOK_EVERY_S: Final = 0.02
_STANDSTILL_S: Final = 120.0


@asynccontextmanager
async def fresh_topic(bench: Bench, stem: str = "bench") -> AsyncIterator[str]:
    """Create a topic of ``PARTITIONS`` partitions for the block, and yield its name."""
    name = bench.name(stem)
    async with admin_client(bench.cluster.kafka_bootstrap) as client:
        await client.create_topics([NewTopic(name, PARTITIONS, 1)])
    try:
        yield name
    finally:
        async with admin_client(bench.cluster.kafka_bootstrap) as client:
            await client.delete_topics([name])


@asynccontextmanager
async def reader(bench: Bench, topic: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a bare consumer for the block; it reads new records of ``topic`` if one is named."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bench.cluster.kafka_bootstrap,
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        if topic is not None:
            consumer.assign(_places(topic))
            await consumer.seek_to_end()
        yield consumer
    finally:
        await consumer.stop()


class Arrivals:
    """How many records have arrived in a topic, by its high-water marks."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._places = _places(topic)

    async def count(self) -> int:
        return sum((await self._consumer.end_offsets(self._places)).values())

    async def more_than(self, known: int, check: Callable[[], None]) -> int:
        """Wait until more than ``known`` records are there, and return how many.

        :param check: raises when no more can arrive
        :raises TimeoutError: for minutes none arrived
        """
        async with asyncio.timeout(_STANDSTILL_S):
            while (count := await self.count()) <= known:
                check()
                await asyncio.sleep(_LOOK_EVERY_S)
        return count

    async def rate(
        self,
        records: int,
        check: Callable[[], None],
        *,
        before: int = 0,
        then: Callable[[], Awaitable[None]] | None = None,
    ) -> float:
        """Return how many a second arrive, from when the first is seen until all are.

        :param before: how many were there already
        :param then: waits for what is part of the work too
        """
        first = count = await self.more_than(before, check)
        began = perf_counter()
        while count < before + records:
            count = await self.more_than(count, check)
        if then is not None:
            await then()
        return (before + records - first) / (perf_counter() - began)


def _places(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(PARTITIONS)]
