"""Where a worker begins to read each partition that it is given: where its subscribers are."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.consuming import offsets
from chassis.consuming.offsets import highest, lowest
from chassis.consuming.processor import ChunkProcessor
from chassis.persistence.database import is_connection_lost

log = structlog.get_logger(__name__)

_ASK_AGAIN_S: Final = 0.5


class Bounds(Protocol):
    """Where Kafka's partitions begin and end."""

    async def bounds(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Return the first and the next offset of each partition of a topic.

        :raises KafkaError: the brokers do not answer
        """
        ...


class StartPositions:
    """Finds out from the database, and from Kafka, where to read on.

    :ivar waiting: why that is not known now; None: it is
    :ivar shorter: topics that hold less than was read of them, which are not read; each with why
    """

    def __init__(
        self,
        engine: AsyncEngine,
        processors: Mapping[str, ChunkProcessor[Any]],
        now: Callable[[], datetime],
    ) -> None:
        self.waiting: str | None = None
        self.shorter: Mapping[TopicPartition, str] = {}
        self._engine = engine
        self._processors = processors
        self._now = now

    async def find(
        self, partitions: frozenset[TopicPartition], kafka: Bounds
    ) -> Mapping[TopicPartition, int]:
        """Return where to read each partition from, as soon as Kafka and the database answer.

        One that is left out is not to be read.
        """
        while True:
            try:
                positions = await self._find_once(partitions, kafka)
            except Exception as error:
                if not (isinstance(error, KafkaError) or is_connection_lost(error)):
                    raise
                self.waiting = f"where to read on is not known: {type(error).__name__}"
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                self.waiting = None
                return positions

    async def _find_once(
        self, partitions: frozenset[TopicPartition], kafka: Bounds
    ) -> Mapping[TopicPartition, int]:
        positions: dict[TopicPartition, int] = {}
        shorter: dict[TopicPartition, str] = {}
        for name, processor in self._processors.items():
            bounds = await kafka.bounds(name)
            async with self._engine.begin() as connection:
                found = await offsets.begin(
                    connection, processor.subscribers, name, bounds, self._now
                )
            # Where all are paused, the first that is resumed needs what is lowest of them.
            begin = lowest(found) | lowest(each for each in found if not each.paused)
            furthest = highest(found)
            # Asked again: progress may have moved, and with it the end, since it was asked first.
            bounds = await kafka.bounds(name)
            for tp in (each for each in partitions if each.topic == name):
                first, following = bounds[tp.partition]
                if begin[tp] < first or furthest[tp] > following:
                    # A restored cluster, or a cut log. To go on would lose what is missing.
                    shorter[tp] = (
                        f"{name}[{tp.partition}] holds {first} to {following},"
                        f" and progress is at {begin[tp]}"
                    )
                    log.error("topic-shorter-than-progress", topic=name, partition=tp.partition)
                else:
                    positions[tp] = begin[tp]
        self.shorter = shorter
        return positions
