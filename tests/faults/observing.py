"""Samples a system four times a second: backlogs, the states of processes, and stalls."""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from contracts.topics import TOPICS
from local_cluster.errors import ClusterError
from local_cluster.testing import RunningCluster
from verification.addresses import SERVICES as WITH_DATABASE

T = TypeVar("T")

EVERY_S: Final = 0.25
# A shorter wait is no stall.
SHORTEST_STALL_S: Final = 0.75
_DATABASE_ANSWERS_WITHIN_S: Final = 1.0
_KAFKA_ANSWERS_WITHIN_S: Final = 3.0
_SAMPLE: Final = """
SELECT (SELECT count(*) FROM outbox) AS outbox,
    (SELECT json_agg(json_build_array(topic, "partition", next_offset)) FROM progress) AS progress
"""

ConsumedPartition = tuple[str, str, int]
"""A service, and a topic and partition that it consumes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample, ``at_s`` seconds into the run. What did not answer is left out."""

    at_s: float
    outboxes: Mapping[str, int]
    lags: Mapping[str, int]
    states: Mapping[str, str]
    restarts: Mapping[str, int]
    answered: int
    load: float = 0.0
    """The machine's, of the last minute (``os.getloadavg``)."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which a service did not advance although a partition had records to handle."""

    service: str
    topic: str
    partition: int
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


class Stalls:
    """Finds stalls from the progress in each partition and from its end."""

    def __init__(self) -> None:
        self.ended: list[Stall] = []
        self._behind: dict[ConsumedPartition, tuple[int, float]] = {}

    def add(
        self, at_s: float, progress: Mapping[ConsumedPartition, int], ends: Mapping[Any, int]
    ) -> None:
        """Add a sample; what is left out is unknown."""
        for partition, next_offset in progress.items():
            end = ends.get(partition[1:])
            if end is None:
                continue
            known = self._behind.get(partition)
            if known is not None and known[0] != next_offset:
                self._end(partition, at_s)
                known = None
            if next_offset < end and known is None:
                self._behind[partition] = (next_offset, at_s)

    def _end(self, partition: ConsumedPartition, at_s: float) -> None:
        _, since = self._behind.pop(partition)
        if at_s - since >= SHORTEST_STALL_S:
            self.ended.append(Stall(*partition, since, at_s))


@dataclass
class Observer:
    """All samples and stalls of one run."""

    cluster: RunningCluster
    answered: Mapping[Any, Any]
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began

    @asynccontextmanager
    async def observing(self) -> AsyncIterator[None]:
        """Take samples while the block runs."""
        task = asyncio.create_task(self._observe())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def _observe(self) -> None:
        # It loses its broker on purpose, and would log that.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        databases = {name: _Database(self.cluster.postgres_url(name)) for name in WITH_DATABASE}
        topics = _Topics(self.cluster.kafka_bootstrap)
        reading_ends = asyncio.create_task(topics.keep_reading())
        try:
            while True:
                await self._take_sample(databases, topics)
                await asyncio.sleep(EVERY_S)
        finally:
            reading_ends.cancel()
            await asyncio.wait([reading_ends])
            if not reading_ends.cancelled():
                reading_ends.result()
            for each in databases.values():
                each.close()

    async def _take_sample(self, databases: Mapping[str, "_Database"], topics: "_Topics") -> None:
        states, rows = await asyncio.gather(
            asyncio.to_thread(self._states),
            asyncio.gather(*(each.sample() for each in databases.values())),
        )
        found = {name: row for name, row in zip(databases, rows, strict=True) if row}
        progress = {
            (name, topic, partition): next_offset
            for name, row in found.items()
            for topic, partition, next_offset in row[1]
        }
        at_s, ends = self.now_s, topics.ends
        self.stalls.add(at_s, progress, ends)
        self.samples.append(
            Sample(
                at_s,
                {name: row[0] for name, row in found.items()},
                dict(_lags(progress, ends)),
                {name: state for name, (state, _) in states.items()},
                {name: restarts for name, (_, restarts) in states.items()},
                len(self.answered),
                os.getloadavg()[0],
            )
        )

    def _states(self) -> dict[str, tuple[str, int]]:
        try:
            processes = self.cluster.processes()
        except ClusterError:
            return {}
        return {name: (each.state, each.restarts) for name, each in processes.items()}


def _lags(
    progress: Mapping[ConsumedPartition, int], ends: Mapping[Any, int]
) -> Iterator[tuple[str, int]]:
    for service in WITH_DATABASE:
        behind = [
            max(0, ends[topic, partition] - next_offset)
            for (name, topic, partition), next_offset in progress.items()
            if name == service and (topic, partition) in ends
        ]
        if behind:
            yield service, sum(behind)


class _Database:
    """A connection to a service's database, opened again after a failure."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection[Any] | None = None

    async def sample(self) -> tuple[int, list[tuple[str, int, int]]] | None:
        try:
            async with asyncio.timeout(_DATABASE_ANSWERS_WITHIN_S):
                if self._connection is None:
                    self._connection = await asyncpg.connect(self._url)
                    await self._connection.set_type_codec(
                        "json", encoder=str, decoder=json.loads, schema="pg_catalog"
                    )
                row = await self._connection.fetchrow(_SAMPLE)
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
        ):
            self.close()
            return None
        assert row is not None
        return row["outbox"], row["progress"] or []

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class _Topics:
    """The end of every partition, read again and again; none while Kafka does not answer."""

    def __init__(self, bootstrap: str) -> None:
        self.ends: Mapping[tuple[str, int], int] = {}
        self._bootstrap = bootstrap
        self._partitions = [
            TopicPartition(topic.name, number)
            for topic in TOPICS
            for number in range(topic.partitions)
        ]

    async def keep_reading(self) -> None:
        # Beside the samples, which must not wait for a Kafka that does not answer.
        while True:
            consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, request_timeout_ms=1_000)
            try:
                await _within(consumer.start())
                consumer.assign(self._partitions)
                while True:
                    found = await _within(consumer.end_offsets(self._partitions))
                    self.ends = {(each.topic, each.partition): end for each, end in found.items()}
                    await asyncio.sleep(EVERY_S)
            except (KafkaError, OSError):
                self.ends = {}
            finally:
                with suppress(KafkaError, OSError):
                    await _within(consumer.stop())


async def _within(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a bounded time: without a broker aiokafka may ignore a cancellation.

    :raises TimeoutError: there was no answer
    """
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait([task], timeout=_KAFKA_ANSWERS_WITHIN_S)
    if not done:
        task.cancel()
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise TimeoutError
    if task.cancelled():
        raise TimeoutError  # aiokafka may also cancel itself
    return task.result()
