"""Looks at a system four times a second: what is on its way, who lives, and what stands still."""

import asyncio
import json
import logging
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

T = TypeVar("T")

EVERY_S: Final = 0.25
# What waits for less is on its way.
SHORTEST_STALL_S: Final = 0.75
_ANSWER_WITHIN_S: Final = 1.0
_KAFKA_ANSWERS_WITHIN_S: Final = 3.0
_SERVICES: Final = ("users", "accounts", "audit", "notification")
_LOOK: Final = """
SELECT (SELECT count(*) FROM outbox) AS outbox,
    (SELECT json_agg(json_build_array(topic, "partition", next_offset)) FROM progress) AS progress
"""

Place = tuple[str, str, int]
"""A service, and the topic's partition that it consumes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look, ``at_s`` seconds into the run. What could not be asked is left out."""

    at_s: float
    outboxes: Mapping[str, int]
    lags: Mapping[str, int]
    states: Mapping[str, str]
    restarts: Mapping[str, int]
    answered: int


@dataclass(frozen=True, slots=True)
class Stall:
    """A partition that stood still for a service, although there was something to handle."""

    service: str
    topic: str
    partition: int
    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


class Stalls:
    """Which partitions stand still, told from how far each has come and how long it is."""

    def __init__(self) -> None:
        self.ended: list[Stall] = []
        self._behind: dict[Place, tuple[int, float]] = {}

    def see(self, at_s: float, progress: Mapping[Place, int], ends: Mapping[Any, int]) -> None:
        """Take what was seen; of what is left out, nothing is known."""
        for place, next_offset in progress.items():
            end = ends.get(place[1:])
            if end is None:
                continue
            known = self._behind.get(place)
            if known is not None and known[0] != next_offset:
                self._end(place, at_s)
                known = None
            if next_offset < end and known is None:
                self._behind[place] = (next_offset, at_s)

    def _end(self, place: Place, at_s: float) -> None:
        _, since = self._behind.pop(place)
        if at_s - since >= SHORTEST_STALL_S:
            self.ended.append(Stall(*place, since, at_s))


@dataclass
class Observer:
    """Everything that was seen in one run."""

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
        """Look again and again while the block runs."""
        task = asyncio.create_task(self._observe())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def _observe(self) -> None:
        # It is meant to lose its broker, and would tell.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        databases = {name: _Database(self.cluster.postgres_url(name)) for name in _SERVICES}
        topics = _Topics(self.cluster.kafka_bootstrap)
        asking = asyncio.create_task(topics.keep_asking())
        try:
            while True:
                await self._look(databases, topics)
                await asyncio.sleep(EVERY_S)
        finally:
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled():
                asking.result()
            for each in databases.values():
                each.close()

    async def _look(self, databases: Mapping[str, "_Database"], topics: "_Topics") -> None:
        states, rows = await asyncio.gather(
            asyncio.to_thread(self._states),
            asyncio.gather(*(each.look() for each in databases.values())),
        )
        found = {name: row for name, row in zip(databases, rows, strict=True) if row}
        progress = {
            (name, topic, partition): next_offset
            for name, row in found.items()
            for topic, partition, next_offset in row[1]
        }
        at_s, ends = self.now_s, topics.ends
        self.stalls.see(at_s, progress, ends)
        self.samples.append(
            Sample(
                at_s,
                {name: row[0] for name, row in found.items()},
                dict(_lags(progress, ends)),
                {name: state for name, (state, _) in states.items()},
                {name: restarts for name, (_, restarts) in states.items()},
                len(self.answered),
            )
        )

    def _states(self) -> dict[str, tuple[str, int]]:
        try:
            processes = self.cluster.processes()
        except ClusterError:
            return {}
        return {name: (each.state, each.restarts) for name, each in processes.items()}


def _lags(progress: Mapping[Place, int], ends: Mapping[Any, int]) -> Iterator[tuple[str, int]]:
    for service in _SERVICES:
        behind = [
            max(0, ends[topic, partition] - next_offset)
            for (name, topic, partition), next_offset in progress.items()
            if name == service and (topic, partition) in ends
        ]
        if behind:
            yield service, sum(behind)


class _Database:
    """A service's database, connected to again whenever it was away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection[Any] | None = None

    async def look(self) -> tuple[int, list[tuple[str, int, int]]] | None:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                if self._connection is None:
                    self._connection = await asyncpg.connect(self._url)
                    await self._connection.set_type_codec(
                        "json", encoder=str, decoder=json.loads, schema="pg_catalog"
                    )
                row = await self._connection.fetchrow(_LOOK)
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
    """The ends of every partition, asked again and again; none while Kafka is away."""

    def __init__(self, bootstrap: str) -> None:
        self.ends: Mapping[tuple[str, int], int] = {}
        self._bootstrap = bootstrap
        self._partitions = [
            TopicPartition(topic.name, number)
            for topic in TOPICS
            for number in range(topic.partitions)
        ]

    async def keep_asking(self) -> None:
        # Beside the other looks, which are not to wait for a Kafka that is away.
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
    """Wait so long and no longer: without a broker aiokafka may not heed that it is cancelled.

    :raises TimeoutError: there was no answer
    """
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait([task], timeout=_KAFKA_ANSWERS_WITHIN_S)
    if not done:
        task.cancel()
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise TimeoutError
    if task.cancelled():
        raise TimeoutError  # it cancels itself as well
    return task.result()
