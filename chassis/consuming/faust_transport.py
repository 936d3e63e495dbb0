"""A Faust transport that delivers chunks: many records of one partition as one event.

Faust spends some hundred microseconds on each event it delivers. Here the consumer thread hands
it lists of one element, a ``Chunk`` with the attributes that Faust reads of a record, so that
cost is paid once a chunk; Faust's own loop, queues, streams and agents stay as they are.

What is read next is decided by a ``FetchPosition``, which only our seeks and our fetches move. So
a chunk's ``begin`` is true by construction, and a lost or doubled chunk is detected when it is
compared with the ``progress`` row. Kafka's committed offsets serve lag tools, nothing else.

The names of Faust's and aiokafka's insides that this rests on are used in this file only, and
``faust_internals.py`` looks for them at the start.
"""

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import faust
import structlog
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Seconds, Service
from mode.threads import ServiceThread, WorkerThread

from chassis.consuming.chunk import Chunk
from chassis.consuming.positions import FetchPosition, ProcessedPositions
from chassis.consuming.records import Record
from chassis.kafka.client import translate_foreign_cancellation

log = structlog.get_logger(__name__)

_FETCH_WAIT_MS: Final = 100
_ROOM_WAIT_MS: Final = 10
_NOTHING_READY_S: Final = 0.02
# Chunks of a partition that are fetched and not yet processed: one in progress, and the next. With
# only one, a lost chunk would not be detected by the chunk after it.
_MOST_AHEAD: Final = 2
_LOOK_AT_ENDS_EVERY_S: Final = 0.25

_serial = itertools.count()


class ChunkReference:
    """Holds a chunk until it is taken.

    Faust keeps the last event that it delivered of each partition: it keeps this, and not the
    chunk's records.
    """

    def __init__(self, chunk: Chunk) -> None:
        self._chunk: Chunk | None = chunk

    def take(self) -> Chunk:
        """Return the chunk, once."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            raise RuntimeError("Faust has delivered one event twice")
        return chunk


@dataclass(frozen=True, slots=True)
class DeliveredChunk(Chunk):
    """A chunk with what Faust reads of a record."""

    # Faust drops a record whose offset is below the last it saw, and a chunk that is fetched
    # again begins lower: so this is only a number that grows.
    offset: int = field(default_factory=lambda: next(_serial))
    timestamp: None = None
    timestamp_type: None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    key: None = None
    checksum: None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0

    @property
    def value(self) -> ChunkReference:
        return ChunkReference(self)


FindPositions = Callable[[frozenset[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]
"""Returns where to read each partition from; a partition that it leaves out is not read."""


class _Thread(WorkerThread):
    """A thread that keeps neither the process alive when it hangs nor the event loop waiting."""

    def __init__(self, service: ServiceThread) -> None:
        super().__init__(service)
        self.daemon = True
        self.ended = asyncio.Event()

    def run(self) -> None:
        try:
            super().run()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits
                self.service.parent_loop.call_soon_threadsafe(self.ended.set)


class ChunkThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread: fetches chunks, and keeps the position of every partition."""

    Worker = _Thread
    consumer: "ChunkConsumer"
    _thread: _Thread | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fetch_positions: dict[TopicPartition, FetchPosition] = {}
        self._ahead: dict[TopicPartition, deque[int]] = defaultdict(deque)
        self.ends: dict[TopicPartition, int | None] = {}
        self.given_up: dict[TopicPartition, str] = {}
        self._looked_at = 0.0
        self._doubted: dict[TopicPartition, int] = {}
        self._fetches_each_alone = False
        self._most_records = self.app.conf.broker_max_poll_records
        self._epochs = itertools.count(1)
        # No seek may come between a fetch and the position that follows from it.
        self._moving = asyncio.Lock()

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        if not hasattr(consumer, "_fetch_max_wait_ms"):
            raise RuntimeError("AIOKafkaConsumer._fetch_max_wait_ms is gone")
        # Faust's 1.5 s would let one partition with nothing new hold up the others so long.
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 - Faust offers no setting
        return consumer

    async def stop(self) -> None:
        """Stop, and wait until the thread has ended.

        mode would block the event loop meanwhile, and the thread may need an answer of that loop
        in order to end.
        """
        if self._started.is_set():
            await Service.stop(self)
            if self._thread is not None:
                await self._thread.ended.wait()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        # First, before anything is awaited: from now on another worker has these partitions.
        self.fetch_positions.clear()
        self._ahead.clear()
        self.given_up.clear()
        await super().on_partitions_revoked(revoked)

    async def getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> Any:
        # Copied here, in the main thread, which changes the set at any time.
        wanted = frozenset(active_partitions or ())
        return await self.call_thread(self._fetch, wanted)

    async def _fetch(self, wanted: frozenset[TP]) -> dict[TopicPartition, list[Chunk]]:
        async with self._moving:
            ours = [tp for tp in self.fetch_positions if tp in wanted]
            ready = sorted(tp for tp in ours if not self._is_far_ahead(tp))
            # A partition that has enough ahead now may need the next chunk at any moment.
            wait_ms = _FETCH_WAIT_MS if len(ready) == len(ours) else _ROOM_WAIT_MS
            self._look_at_ends()
            if not ready or not self.consumer.flow_active:
                await asyncio.sleep(_NOTHING_READY_S)
                return {}
            try:
                found = await self._fetch_each(ready, wait_ms)
            except NoOffsetForPartitionError:
                return {}  # a rebalance came between, and no seek has been made yet
            except OffsetOutOfRangeError as error:
                for tp in error.args[0]:
                    self._give_up(tp, "no longer holds what comes next")
                return {}
            chunks = {
                tp: self._chunk_of(tp, records)
                for tp, records in found.items()
                if records and tp in self.fetch_positions
            }
            return {tp: [chunk] for tp, chunk in chunks.items() if chunk is not None}

    def _is_far_ahead(self, tp: TopicPartition) -> bool:
        """Tell whether enough chunks of a partition wait here.

        Fetched chunks take memory, and records that arrive meanwhile share the next chunk.
        """
        processed = self.consumer.processed_up_to(tp)
        ahead = self._ahead[tp]
        while ahead and (processed is None or ahead[0] <= processed):
            ahead.popleft()
        return len(ahead) >= _MOST_AHEAD

    async def _fetch_each(
        self, ready: Sequence[TopicPartition], wait_ms: int
    ) -> dict[TopicPartition, list[Record]]:
        """Fetch one chunk of every partition that has something."""
        consumer = self._ensure_consumer()
        found: dict[TopicPartition, list[Record]] = {}
        if not self._fetches_each_alone:
            try:
                found |= await consumer.getmany(*ready, timeout_ms=wait_ms)
                if sum(map(len, found.values())) < self._most_records:
                    return found  # there was room for more, and no partition has more
            except UnicodeDecodeError:
                # The name of a header, which aiokafka must decode. The error does not name the
                # partition, and records that this call had taken of others are gone: all are
                # fetched again, each partition alone.
                self._fetches_each_alone = True
                for tp, position in self.fetch_positions.items():
                    consumer.seek(tp, position.next)
        each_wait_ms = wait_ms // len(ready) if self._fetches_each_alone else 0
        for tp in ready:
            if tp not in found:
                try:
                    found |= await consumer.getmany(tp, timeout_ms=each_wait_ms)
                except UnicodeDecodeError:
                    self._give_up(tp, "holds a record that can't be read next")
                    self._fetches_each_alone = False
        return found

    def _chunk_of(self, tp: TopicPartition, records: list[Record]) -> Chunk | None:
        """Make a chunk of what was fetched, and move the position behind it.

        Our topics have no holes. Where one appears, the fetch is repeated before the hole is
        believed: aiokafka's position may have been moved by other code than ours.
        """
        position = self.fetch_positions[tp]
        if records[0].offset != position.next and self._doubted.get(tp) != position.next:
            log.warning("unexpected-hole", topic=tp.topic, partition=tp.partition)
            self._doubted[tp] = position.next
            self._seek_to(tp, position.next)
            return None
        end = records[-1].offset + 1
        self.fetch_positions[tp] = FetchPosition(position.epoch, end)
        self._ahead[tp].append(end)
        return DeliveredChunk(tp.topic, tp.partition, position.next, end, position.epoch, records)

    def _look_at_ends(self) -> None:
        """Remember where each partition ended when it was last fetched, for the main thread."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_AT_ENDS_EVERY_S:
            return
        self._looked_at = now
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        self.ends = {tp: consumer.highwater(tp) for tp in self.fetch_positions if tp in assigned}

    def highwater(self, tp: Any) -> Any:
        # aiokafka's own may only be asked in its thread, and not once the partition is gone.
        return self.ends.get(tp)

    async def bounds(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Return the first and the next offset of each partition of a topic.

        :raises KafkaError: the brokers do not answer
        """
        return cast("Mapping[int, tuple[int, int]]", await self.call_thread(self._bounds, topic))

    async def _bounds(self, topic: str) -> Mapping[int, tuple[int, int]]:
        consumer = self._ensure_consumer()
        numbers = consumer.partitions_for_topic(topic) or ()
        partitions = [TopicPartition(topic, number) for number in numbers]
        with translate_foreign_cancellation():
            first = await consumer.beginning_offsets(partitions)
            following = await consumer.end_offsets(partitions)
        return {tp.partition: (first[tp], following[tp]) for tp in partitions}

    def _give_up(self, tp: TopicPartition, reason: str) -> None:
        """Read no more of a partition until an operator decides, and report it; others are read."""
        position = self.fetch_positions.pop(tp, None)
        consumer = self._ensure_consumer()
        if position is not None and tp in consumer.assignment():
            consumer.pause(tp)
            consumer.seek(tp, position.next)  # drops what aiokafka has buffered of it
        self.given_up[tp] = f"{tp.topic}[{tp.partition}] {reason}"
        log.error("partition-given-up", topic=tp.topic, partition=tp.partition, reason=reason)

    async def seek_all(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read on from these offsets, in a new epoch each."""
        await self.call_thread(self._seek_all, offsets)

    async def _seek_all(self, offsets: Mapping[TopicPartition, int]) -> None:
        async with self._moving:
            for tp, offset in offsets.items():
                self._seek_to(tp, offset)

    async def rewind(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        """Read on from ``offset``, unless there was a seek since ``epoch``."""
        await self.call_thread(self._rewind, tp, offset, epoch)

    async def _rewind(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        async with self._moving:
            position = self.fetch_positions.get(tp)
            if position is not None and position.epoch == epoch:
                self._seek_to(tp, offset)

    def _seek_to(self, tp: TopicPartition, offset: int) -> None:
        consumer = self._ensure_consumer()
        if tp in consumer.assignment():
            consumer.resume(tp)
            consumer.seek(tp, offset)
            self.fetch_positions[tp] = FetchPosition(next(self._epochs), offset)
            self._ahead[tp].clear()

    async def rejoin(self) -> None:
        """Ask the group to rebalance; Kafka does so if this worker is the group's leader."""
        await self.call_thread(self._rejoin)

    async def _rejoin(self) -> None:
        self._ensure_consumer()._coordinator.request_rejoin()  # noqa: SLF001 - aiokafka offers none

    async def commit_for_lag_tools(self, offsets: Mapping[TopicPartition, int]) -> None:
        try:
            await self.call_thread(self._ensure_consumer().commit, offsets)
        except KafkaError as error:
            log.info("offsets-not-committed", error=type(error).__name__)


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, positioned by ``progress`` instead of by Kafka's committed offsets."""

    positions: FindPositions
    _thread: ChunkThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._processed = ProcessedPositions()
        self._positioning: asyncio.Task[None] | None = None

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
    def given_up(self) -> Mapping[TopicPartition, str]:
        """Return the partitions that are no longer read, and why."""
        return dict(self._thread.given_up)

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
        """Return up to where each partition is processed of which more is published."""
        return self._processed.lagging(self._thread.ends)

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

    async def go_back(self, tp: TopicPartition, offset: int) -> None:
        """Read on from ``offset``: an operator has moved progress back."""
        position = self.fetch_positions.get(tp)
        if position is not None:
            log.info("rewind", topic=tp.topic, partition=tp.partition, offset=offset)
            self._processed.offsets[tp] = offset
            await self._thread.rewind(tp, offset, position.epoch)

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
        if self._positioning is not None:
            self._positioning.cancel()
        self._positioning = asyncio.create_task(self._position_assigned())
        return {}

    async def _position_assigned(self) -> None:
        try:
            assigned = frozenset(TopicPartition(*tp) for tp in self.assignment())
            offsets = await self.positions(assigned)
            self._processed.start(offsets)
            await self._thread.seek_all(offsets)
        except Exception as error:  # noqa: BLE001 - the watchdog ends the process
            await self.crash(error)

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
        if self._positioning is not None:
            self._positioning.cancel()
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
