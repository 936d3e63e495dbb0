"""A Faust transport that delivers chunks, and is positioned by ``progress``.

``chunk_thread.py`` fetches the chunks. Kafka's committed offsets serve lag tools, nothing else.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import faust
import structlog
import uvloop
from aiokafka import TopicPartition
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Seconds

from chassis.consuming.chunk import Chunk
from chassis.consuming.chunk_thread import ChunkThread, ProcessingConsumer
from chassis.consuming.positions import (
    FetchPosition,
    FindPositions,
    GivenUp,
    ProcessedPositions,
)

log = structlog.get_logger(__name__)


class ChunkConsumer(ProcessingConsumer):
    """Faust's consumer, positioned by ``progress`` instead of by Kafka's committed offsets."""

    positions: FindPositions
    _thread: ChunkThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._processed = ProcessedPositions()
        self._positioning: dict[str, asyncio.Task[None]] = {}

    def _new_consumer_thread(self) -> ChunkThread:
        # As the main thread has; left alone it makes one of asyncio's.
        loop = uvloop.new_event_loop()
        thread = ChunkThread(self, loop=self.loop, thread_loop=loop, beacon=self.beacon)
        thread._close_thread_loop_on_stop = True  # noqa: SLF001 - it is nobody else's
        return thread

    @property
    def fetch_positions(self) -> Mapping[TopicPartition, FetchPosition]:
        return self._thread.fetch_positions

    @property
    def topic_ids(self) -> Mapping[TopicPartition, UUID]:
        """Return the id of the topic of each partition that is read, or that was given up."""
        given_up = {tp: each.position for tp, each in self.given_up.items()}
        return {tp: each.topic_id for tp, each in (dict(self.fetch_positions) | given_up).items()}

    @property
    def given_up(self) -> Mapping[TopicPartition, GivenUp]:
        """Return the partitions that are no longer read, and why."""
        return dict(self._thread.given_up)

    @property
    def tried_again(self) -> Mapping[TopicPartition, str]:
        """Return the partitions that could not be read when last tried, and why."""
        careful = self._thread.careful
        reasons = {tp: careful.reason(tp) for tp in list(self.fetch_positions)}
        return {tp: reason for tp, reason in reasons.items() if reason is not None}

    @property
    def hidden(self) -> Mapping[TopicPartition, int]:
        """Return how many offsets an open transaction hides, of those partitions with one."""
        return self._thread.hidden

    @property
    def out_of_range(self) -> Mapping[TopicPartition, int]:
        """Return the offsets that were to be fetched, of partitions that do not hold them."""
        return dict(self._thread.out_of_range)

    def forget_out_of_range(self, tp: TopicPartition) -> None:
        """Forget that an offset was not there, once that is in the database."""
        self._thread.out_of_range.pop(tp, None)

    @property
    def ends(self) -> Mapping[TopicPartition, int | None]:
        """Return where each partition ended when it was last fetched."""
        return self._thread.ends

    @property
    def processed(self) -> Mapping[TopicPartition, int]:
        """Return up to where each partition is processed, as far as is known here."""
        return {
            tp: offset
            for tp, offset in self._processed.offsets.items()
            if tp in self.fetch_positions
        }

    def processed_up_to(self, tp: TopicPartition) -> int | None:
        """Return up to where a partition is processed, as far as is known here."""
        return self._processed.offsets.get(tp)

    def lagging(self) -> Mapping[TopicPartition, int]:
        """Return up to where each partition is processed that has more, and is not tried again."""
        tried = self.tried_again
        lagging = self._processed.lagging(self._thread.ends)
        return {tp: offset for tp, offset in lagging.items() if tp not in tried}

    async def bounds(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Return the first and the next offset of each partition of a topic.

        :raises KafkaError: the brokers do not answer
        """
        return await self._thread.bounds(topic)

    async def rejoin(self) -> None:
        """Ask the group to rebalance; Kafka does so if this worker is the group's leader."""
        await self._thread.rejoin()

    def is_current(self, chunk: Chunk) -> bool:
        position = self.fetch_positions.get(chunk.tp)
        return position is not None and position.epoch == chunk.epoch

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        log.info("rewind", topic=chunk.topic, partition=chunk.partition, offset=offset)
        await self._thread.rewind(chunk.tp, offset, chunk.epoch)

    async def leave(self, chunk: Chunk) -> None:
        await self._thread.leave([chunk.tp], chunk.epoch)

    async def leave_all(self, partitions: Collection[TopicPartition]) -> None:
        """Read no more of these partitions until they are positioned again."""
        if partitions:
            await self._thread.leave(partitions)

    async def go_to(self, tp: TopicPartition, offset: int) -> None:
        """Read on from ``offset``: progress was moved back, or far ahead of what is read."""
        position = self.fetch_positions.get(tp)
        if position is not None:
            log.info("rewind", topic=tp.topic, partition=tp.partition, offset=offset)
            self._processed.offsets[tp] = offset
            await self._thread.rewind(tp, offset, position.epoch)

    async def go_on(self, tp: TopicPartition, offset: int) -> None:
        """Read on from ``offset``: an operator has moved progress over what can't be read."""
        log.info("read-on", topic=tp.topic, partition=tp.partition, offset=offset)
        self._processed.offsets[tp] = offset
        await self._thread.go_on(tp, offset)

    def begin(self, chunk: Chunk) -> None:
        self._processed.begin(chunk)

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        self._processed.advance(chunk, next_offset)

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        self._processed.end(chunk, next_offset)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Position every assigned partition; Faust calls it after each assignment and flow stop.

        It returns at once: a partition without a position is not read, and the database that
        knows the position may be unreachable for a while.
        """
        self._stop_positioning()
        self.find_positions(self._assigned())
        return {}

    def find_positions(self, partitions: Collection[TopicPartition]) -> None:
        """Begin to find out where to read these partitions; no topic waits for another."""
        for topic in {tp.topic for tp in partitions}:
            of_topic = frozenset(tp for tp in partitions if tp.topic == topic)
            self._positioning[topic] = asyncio.create_task(self._position(of_topic))

    async def _position(self, partitions: frozenset[TopicPartition]) -> None:
        try:
            positions = await self.positions(partitions)
            self._processed.start({tp: each.offset for tp, each in positions.items()})
            await self._thread.seek_all(positions)
        except Exception as error:  # noqa: BLE001 - the watchdog ends the process
            await self.crash(error)

    def _stop_positioning(self) -> None:
        for task in self._positioning.values():
            task.cancel()
        self._positioning.clear()

    def unpositioned(self) -> Collection[TopicPartition]:
        """Return assigned partitions that are not read, although nothing here is in the way."""
        known = {*self.fetch_positions, *self.given_up}
        return [
            tp
            for tp in self._assigned()
            if tp not in known
            and ((task := self._positioning.get(tp.topic)) is None or task.done())
        ]

    def _assigned(self) -> frozenset[TopicPartition]:
        return frozenset(TopicPartition(*tp) for tp in self.assignment())

    async def force_commit(
        self,
        topics: Any = None,
        start_new_transaction: bool = True,  # noqa: FBT001, FBT002 - Faust's signature
    ) -> bool:
        """Commit offsets for lag tools, and look for a last chunk that got lost.

        Faust calls it on its commit timer; nothing of ours reads the committed offsets.
        """
        mine = self.processed
        if mine:
            await self._thread.commit_for_lag_tools(mine)
        for tp, position in self._processed.lost(
            dict(self.fetch_positions), time.monotonic()
        ).items():
            log.warning("tail-lost", topic=tp.topic, partition=tp.partition, offset=position.next)
            await self._thread.rewind(tp, position.next, position.epoch)
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave out Faust's own stall report: it looks at acknowledgements, and we make none."""

    async def on_stop(self) -> None:
        self._stop_positioning()
        await super().on_stop()


class ChunkTransport(driver.Transport):
    """Faust's Kafka transport, with chunks."""

    Consumer = ChunkConsumer


class ChunkSchema(faust.Schema[Any, Any]):
    """Gives the agent the chunk as it is: the subscriber decodes it."""

    def loads_key(self, app: Any, message: Any, **_kwargs: Any) -> Any:
        return message.key

    def loads_value(self, app: Any, message: Any, **_kwargs: Any) -> Any:
        return message.value


class NoTables(TableManager):
    """Faust's tables, of which there are none here.

    Faust waits a second for tables to be declared before it joins the group, which is a fifth of
    the time that a restart may take.
    """

    async def sleep(self, n: Seconds) -> None:
        await asyncio.sleep(0)
