"""The thread that fetches chunks: many records of one partition as one event of Faust.

Faust spends some hundred microseconds on each event it delivers. Here the consumer thread hands
it lists of one element, a ``Chunk`` with the attributes that Faust reads of a record, so that
cost is paid once a chunk; Faust's own loop, queues, streams and agents stay as they are.

What is read next is decided by a ``FetchPosition``, which only our seeks and our fetches move. So
a chunk's ``begin`` is true by construction, and a lost or doubled chunk is detected when it is
compared with the ``progress`` row.

Only committed records are read. Where a fetch moves aiokafka's position over offsets that hold no
record (the marker of a transaction, records that were aborted or compacted away), the chunk moves
progress over them too, if need be without a record.

The names of Faust's and aiokafka's insides that this rests on are used here and in
``faust_transport.py`` only, and ``faust_internals.py`` looks for them at the start.
"""

import asyncio
import contextlib
import itertools
import time
from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast
from uuid import UUID

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service
from mode.threads import ServiceThread, WorkerThread

from chassis.consuming.careful_reading import (
    WAITED_FOR,
    CannotRead,
    CarefulReading,
    NoLongerHeld,
)
from chassis.consuming.chunk import Chunk
from chassis.consuming.positions import (
    FetchPosition,
    GivenUp,
    StartPosition,
)
from chassis.consuming.records import Record
from chassis.kafka.client import translate_foreign_cancellation
from chassis.kafka.raw_fetch import RawFetch, high_watermarks

log = structlog.get_logger(__name__)

_FETCH_WAIT_MS: Final = 100
# The broker answers at once when a record comes, so a long wait delays none of what is read. But it
# answers one request of a connection after the other: who asks where a partition begins waits too.
_QUIET_WAIT_MS: Final = 500
_QUIET_AFTER_S: Final = 2.0
# Records, of all partitions together: of more than that, each costs little by itself.
_FEW: Final = 50
_ROOM_WAIT_MS: Final = 10
_NOTHING_READY_S: Final = 0.02
# Chunks of a partition that are fetched and not yet processed: one in progress, and the next. With
# only one, a lost chunk would not be detected by the chunk after it.
_MOST_AHEAD: Final = 2
_LOOK_AT_ENDS_EVERY_S: Final = 0.25
# A partition that has more and does not move for so long is read carefully: aiokafka only logs some
# errors with which a broker answers.
_STILL_AFTER_S: Final = 5.0

_PRIVATE: Final = (
    "_client",
    "_coordinator",
    "_fetch_max_wait_ms",
    "_fetcher",
    "_isolation_level",
)

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


class ProcessingConsumer(driver.Consumer):
    """The consumer that a thread fetches for: it knows how far the chunks are processed.

    :ivar pace_s: how long to rest after few records came, so that the next ones come together
    """

    pace_s = 0.0

    @abstractmethod
    def processed_up_to(self, tp: TopicPartition) -> int | None:
        """Return the offset up to which a partition is processed; None: it is not known."""


class ChunkThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread: fetches chunks, and keeps the position of every partition."""

    Worker = _Thread
    consumer: ProcessingConsumer
    _thread: _Thread | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fetch_positions: dict[TopicPartition, FetchPosition] = {}
        self._ahead: dict[TopicPartition, deque[int]] = defaultdict(deque)
        self.ends: dict[TopicPartition, int | None] = {}
        self.hidden: dict[TopicPartition, int] = {}
        self.given_up: dict[TopicPartition, GivenUp] = {}
        self.careful = CarefulReading()
        #: What was to be fetched next of partitions that do not hold it; they are not read.
        self.out_of_range: dict[TopicPartition, int] = {}
        self._looked_at = 0.0
        self._fetched_at = time.monotonic()
        self._rests_until = 0.0
        self._still: dict[TopicPartition, tuple[int, float]] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._most_records = self.app.conf.broker_max_poll_records
        self._epochs = itertools.count(1)
        # No seek may come between a fetch and the position that follows from it.
        self._moving = asyncio.Lock()

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        for name in _PRIVATE:
            if not hasattr(consumer, name):
                raise RuntimeError(f"AIOKafkaConsumer.{name} is gone")
        # Faust's 1.5 s would let one partition with nothing new hold up the others so long.
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 - Faust offers no setting
        # Faust sets it only with its own kind of transactions.
        consumer._isolation_level = "read_committed"  # noqa: SLF001
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
        self._committed.clear()
        self.given_up.clear()
        self.careful.clear()
        # aiokafka fetches what is assigned next before we do, while we ask where to begin in it.
        self._let_brokers_wait(_FETCH_WAIT_MS)
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
        if (rest_s := self._rests_until - time.monotonic()) > 0:
            await asyncio.sleep(rest_s)
        async with self._moving:
            await self._look_at_given_up()
            ours = [tp for tp in self.fetch_positions if tp in wanted]
            ready = sorted(tp for tp in ours if not self._is_far_ahead(tp))
            wait_ms = _QUIET_WAIT_MS if self._is_quiet(wanted, ours) else _FETCH_WAIT_MS
            self._let_brokers_wait(wait_ms)
            if len(ready) < len(ours):
                # A partition that has enough ahead may need its next chunk at any moment.
                wait_ms = _ROOM_WAIT_MS
            self._look_at_ends()
            self._find_still(ready)
            if not ready or not self.consumer.flow_active:
                await asyncio.sleep(_NOTHING_READY_S)
                return {}
            careful = [tp for tp in ready if tp in self.careful]
            usual = await self._where_we_left([tp for tp in ready if tp not in self.careful])
            chunks = await self._read_carefully(careful)
            if usual:
                chunks += await self._fetch_usual(usual, wait_ms)
            elif not chunks:
                await asyncio.sleep(_NOTHING_READY_S)
            if chunks:
                self._fetched_at = time.monotonic()
                if not self._is_backlog(chunks):
                    self._rests_until = self._fetched_at + self.consumer.pace_s
            return {chunk.tp: [chunk] for chunk in chunks}

    def _is_quiet(self, wanted: Collection[TP], ours: Collection[TopicPartition]) -> bool:
        """Tell whether all is read that is assigned, and nothing has come for some time."""
        is_whole = 0 < len(ours) == len(wanted)
        return is_whole and time.monotonic() - self._fetched_at > _QUIET_AFTER_S

    def _let_brokers_wait(self, wait_ms: int) -> None:
        """Set how long a broker may wait for a record, from the next fetch on."""
        fetcher = self._ensure_consumer()._fetcher  # noqa: SLF001 - aiokafka offers no setting
        fetcher._fetch_max_wait_ms = wait_ms  # noqa: SLF001

    def _is_backlog(self, chunks: Sequence[Chunk]) -> bool:
        """Tell whether many records came, or not all that there are: a fetch ends at its size."""
        return sum(len(each.records) for each in chunks) > _FEW or any(
            (end := self.ends.get(each.tp)) is not None and end > each.end for each in chunks
        )

    def _is_far_ahead(self, tp: TopicPartition) -> bool:
        """Tell whether enough chunks of a partition wait here.

        Fetched chunks take memory, and records that arrive meanwhile share the next chunk.
        """
        processed = self.consumer.processed_up_to(tp)
        ahead = self._ahead[tp]
        while ahead and (processed is None or ahead[0] <= processed):
            ahead.popleft()
        return len(ahead) >= _MOST_AHEAD

    async def _where_we_left(
        self, partitions: Sequence[TopicPartition]
    ) -> Sequence[TopicPartition]:
        """Return the partitions whose position is where our last seek or fetch left it.

        Others are sought again: a chunk that began elsewhere would leave records out.
        """
        consumer = self._ensure_consumer()
        as_left: list[TopicPartition] = []
        for tp in partitions:
            position = self.fetch_positions.get(tp)
            found = None if position is None else await self._position_of(tp)
            if position is None or found is None:
                continue  # it is being revoked
            if found != position.next:
                log.warning("position-moved", topic=tp.topic, partition=tp.partition, offset=found)
                consumer.seek(tp, position.next)
                self.careful.start([tp])
            else:
                as_left.append(tp)
        return as_left

    async def _position_of(self, tp: TopicPartition) -> int | None:
        try:
            return int(await self._ensure_consumer().position(tp))
        except IllegalStateError:
            return None  # it is not assigned any more

    async def _fetch_usual(self, partitions: Sequence[TopicPartition], wait_ms: int) -> list[Chunk]:
        """Fetch one chunk of every partition that has something."""
        found = await self._getmany(partitions, wait_ms)
        if sum(map(len, found.values())) >= self._most_records:
            # There was no room for more, and other partitions may have some.
            for tp in partitions:
                if not found.get(tp):
                    found |= await self._getmany([tp], 0)
        chunks: list[Chunk] = []
        # Not of all: a fetch that failed has moved the positions of records that are gone with it.
        for tp, records in found.items():
            if (position := self.fetch_positions.get(tp)) is None:
                continue
            # Read here, where no seek can come between.
            end = await self._position_of(tp)
            if end is not None and end > position.next:
                chunks.append(self._chunk_of(tp, records, end))
        return chunks

    async def _getmany(
        self, partitions: Sequence[TopicPartition], wait_ms: int
    ) -> dict[TopicPartition, list[Record]]:
        """Return the records of these partitions, if need be none; nothing when that fails."""
        consumer = self._ensure_consumer()
        try:
            found = await consumer.getmany(*partitions, timeout_ms=wait_ms)
            return {tp: found.get(tp, []) for tp in partitions}
        except ConsumerStoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - decompressors raise whatever they like
            # What concerns the group is raised here, and ends the process.
            consumer._coordinator.check_errors()  # noqa: SLF001 - aiokafka offers none
            self._fetch_failed(partitions, error)
            return {}

    def _fetch_failed(self, partitions: Sequence[TopicPartition], error: Exception) -> None:
        """Read these partitions carefully, each from its position, unless the error is waited for.

        It does not always name its partition, and records that this call had taken of others are
        gone.
        """
        if type(error) is NoOffsetForPartitionError:
            return  # a rebalance came between, and no seek has been made yet
        if type(error) is OffsetOutOfRangeError:
            for tp, offset in error.args[0].items():
                position = self.fetch_positions.get(tp)
                # Before our first seek aiokafka fetches from the committed offset, which may lie
                # where progress does not.
                if position is not None and position.next == offset:
                    self._not_held(tp, offset)
            return
        if type(error) not in WAITED_FOR:
            log.warning("fetch-failed", error=type(error).__name__)
            self.careful.start([tp for tp in partitions if tp in self.fetch_positions])

    async def _read_carefully(self, partitions: Sequence[TopicPartition]) -> list[Chunk]:
        """Read one chunk of every partition that has something, each by itself."""
        chunks = [await self._read_one_carefully(tp) for tp in partitions]
        return [each for each in chunks if each is not None]

    async def _read_one_carefully(self, tp: TopicPartition) -> Chunk | None:
        if (position := self.fetch_positions.get(tp)) is None:
            return None
        consumer = self._ensure_consumer()
        error: Exception | None = None
        fetched: RawFetch | None = None
        try:
            fetched = await self.careful.read(
                consumer._client,  # noqa: SLF001 - aiokafka offers no raw fetch
                tp,
                position.next,
                self._most_records,
            )
        except (CannotRead, NoLongerHeld) as raised:
            error = raised
        if self.fetch_positions.get(tp) != position:
            return None  # it was revoked meanwhile
        if isinstance(error, NoLongerHeld):
            self._not_held(tp, position.next)
        elif error is not None:
            self._give_up(tp, f"can't be read at offset {position.next}: {error}")
        if fetched is None:
            return None
        consumer.seek(tp, fetched.end)
        if fetched.end == position.next:
            return None
        return self._chunk_of(tp, fetched.records, fetched.end)

    async def _look_at_given_up(self) -> None:
        """Read on in a partition that can be read now: its broker may have been repaired."""
        consumer = self._ensure_consumer()
        for tp, given_up in list(self.given_up.items()):
            if tp not in self.careful or tp not in consumer.assignment():
                continue
            position = given_up.position
            try:
                fetched = await self.careful.read(
                    consumer._client,  # noqa: SLF001 - aiokafka offers no raw fetch
                    tp,
                    position.next,
                    1,
                )
            except NoLongerHeld:
                self.careful.end(tp)
            except CannotRead:
                self.careful.look_again(tp)
            else:
                if fetched is not None and self.given_up.get(tp) is given_up:
                    log.info("partition-readable", topic=tp.topic, partition=tp.partition)
                    self._seek_to(tp, position.next, position.topic_id)

    def _chunk_of(self, tp: TopicPartition, records: Sequence[Record], end: int) -> Chunk:
        """Make a chunk of what was fetched, and move the position behind it."""
        position = self.fetch_positions[tp]
        self.fetch_positions[tp] = replace(position, next=end)
        self._ahead[tp].append(end)
        return DeliveredChunk(
            tp.topic,
            tp.partition,
            position.next,
            end,
            position.epoch,
            records,
            position.topic_id,
        )

    def _look_at_ends(self) -> None:
        """Remember where each partition ended when it was last fetched, for the main thread.

        It ends where an open transaction begins: what comes after that is hidden until it ends.
        """
        now = time.monotonic()
        if now - self._looked_at < _LOOK_AT_ENDS_EVERY_S:
            return
        self._looked_at = now
        consumer = self._ensure_consumer()
        # It ends by itself where it fails, and nothing would be fetched any more.
        if (fetching := consumer._fetcher.error_future).done():  # noqa: SLF001 - aiokafka is silent
            fetching.result()
        assigned = consumer.assignment()
        known = [tp for tp in self.fetch_positions if tp in assigned]
        self.ends = {tp: consumer.last_stable_offset(tp) for tp in known}
        self.hidden = {
            tp: hidden
            for tp in known
            if (stable := self.ends[tp]) is not None
            and (hidden := consumer.highwater(tp) - stable) > 0
        }

    def _find_still(self, partitions: Sequence[TopicPartition]) -> None:
        """Begin to read those carefully that have more, as far as is known, and do not move."""
        now = time.monotonic()
        still: dict[TopicPartition, tuple[int, float]] = {}
        for tp in partitions:
            end, offset = self.ends.get(tp), self.fetch_positions[tp].next
            if end is None or end > offset:
                seen, since = self._still.get(tp, (offset, now))
                still[tp] = (offset, since if seen == offset else now)
                if now - still[tp][1] >= _STILL_AFTER_S:
                    self.careful.start([tp])
                    still[tp] = (offset, now)
        self._still = still

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
            # Not where the committed records end: progress may lie behind the begin of an open
            # transaction, since it was moved by a version that read uncommitted records.
            following = await high_watermarks(
                consumer._client,  # noqa: SLF001 - aiokafka asks in its own isolation only
                partitions,
            )
        return {tp.partition: (first[tp], following[tp]) for tp in partitions}

    def _give_up(self, tp: TopicPartition, reason: str) -> None:
        """Read no more of a partition until it can be read, or an operator passes over a batch."""
        position = self.fetch_positions[tp]
        self._stop_reading(tp)
        self.given_up[tp] = GivenUp(position, f"{tp.topic}[{tp.partition}] {reason}")
        self.careful.look_again(tp)
        log.error(
            "partition-given-up",
            topic=tp.topic,
            partition=tp.partition,
            offset=position.next,
            reason=reason,
        )

    def _not_held(self, tp: TopicPartition, offset: int) -> None:
        log.error("offset-out-of-range", topic=tp.topic, partition=tp.partition, offset=offset)
        self.out_of_range[tp] = offset
        self.careful.end(tp)
        self._stop_reading(tp)

    def _stop_reading(self, tp: TopicPartition) -> None:
        position = self.fetch_positions.pop(tp, None)
        consumer = self._ensure_consumer()
        if position is not None and tp in consumer.assignment():
            consumer.pause(tp)
            consumer.seek(tp, position.next)  # drops what aiokafka has buffered of it

    async def leave(self, partitions: Collection[TopicPartition], epoch: int | None = None) -> None:
        """Read no more of partitions until their next seek; with ``epoch``, unless it is over."""
        await self.call_thread(self._leave, partitions, epoch)

    async def _leave(self, partitions: Collection[TopicPartition], epoch: int | None) -> None:
        async with self._moving:
            for tp in partitions:
                position = self.fetch_positions.get(tp)
                if position is not None and epoch in (None, position.epoch):
                    self._stop_reading(tp)
                if epoch is None and self.given_up.pop(tp, None) is not None:
                    self.careful.end(tp)

    async def seek_all(self, positions: Mapping[TopicPartition, StartPosition]) -> None:
        """Read on from these positions, in a new epoch each."""
        await self.call_thread(self._seek_all, positions)

    async def _seek_all(self, positions: Mapping[TopicPartition, StartPosition]) -> None:
        async with self._moving:
            for tp, position in positions.items():
                self._seek_to(tp, position.offset, position.topic_id)

    async def rewind(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        """Read on from ``offset``, unless there was a seek since ``epoch``."""
        await self.call_thread(self._rewind, tp, offset, epoch)

    async def _rewind(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        async with self._moving:
            position = self.fetch_positions.get(tp)
            if position is not None and position.epoch == epoch:
                self._seek_to(tp, offset, position.topic_id)

    def _seek_to(self, tp: TopicPartition, offset: int, topic_id: UUID) -> None:
        consumer = self._ensure_consumer()
        if tp in consumer.assignment():
            consumer.resume(tp)
            consumer.seek(tp, offset)
            self.fetch_positions[tp] = FetchPosition(next(self._epochs), offset, topic_id)
            self._ahead[tp].clear()
            # A topic that was made again has the name of one whose offsets Kafka has dropped.
            self._committed.pop(tp, None)
            if self.given_up.pop(tp, None) is not None:
                self.careful.end(tp)

    async def go_on(self, tp: TopicPartition, offset: int) -> None:
        """Read on from ``offset`` in a partition that was given up elsewhere."""
        await self.call_thread(self._go_on, tp, offset)

    async def _go_on(self, tp: TopicPartition, offset: int) -> None:
        async with self._moving:
            given_up = self.given_up.get(tp)
            if given_up is not None and given_up.position.next != offset:
                self._seek_to(tp, offset, given_up.position.topic_id)

    async def rejoin(self) -> None:
        """Ask the group to rebalance; Kafka does so if this worker is the group's leader."""
        await self.call_thread(self._rejoin)

    async def _rejoin(self) -> None:
        self._ensure_consumer()._coordinator.request_rejoin()  # noqa: SLF001 - aiokafka offers none

    async def commit_for_lag_tools(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit those that have moved since they were last committed."""
        moved = {tp: offset for tp, offset in offsets.items() if self._committed.get(tp) != offset}
        if not moved:
            return
        try:
            await self.call_thread(self._ensure_consumer().commit, moved)
        except KafkaError as error:
            log.info("offsets-not-committed", error=type(error).__name__)
        else:
            self._committed |= moved
