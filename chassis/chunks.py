"""A Faust transport that delivers chunks: many records of one partition as one event.

Faust spends some hundred microseconds on each event it delivers. Here the consumer thread hands
it lists of one element, a ``Chunk`` with the attributes that Faust reads of a record, so that
cost is paid once a chunk; Faust's own loop, queues, streams and agents stay as they are.

What is read next is decided by ``Place``: only our seeks and our fetches move it, so a chunk's
``begin`` is true by construction, and a lost or doubled chunk shows as soon as it is compared
with the ``progress`` row. Kafka's committed offsets serve lag tools, nothing else.

The names of Faust's and aiokafka's insides that this rests on are used in this file only.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import faust
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from chassis.records import Record

log = structlog.get_logger(__name__)

_FETCH_WAIT_MS: Final = 100
_NOTHING_READY_S: Final = 0.02
_TAIL_LOST_AFTER_S: Final = 5.0

_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition: all that it holds from ``begin`` up to, not including, ``end``."""

    topic: str
    partition: int
    begin: int
    end: int
    epoch: int
    records: Sequence[Record]
    # What Faust reads of a record. It drops one whose offset is below the last it saw, and a
    # chunk that is fetched again begins lower: so this is only a number that grows.
    offset: int = field(default_factory=lambda: next(_serial))
    timestamp: None = None
    timestamp_type: None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    key: None = None
    checksum: None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0

    @property
    def value(self) -> "Chunk":
        return self

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next fetch of a partition begins; a seek makes a new epoch."""

    epoch: int
    next: int


class Feed(Protocol):
    """What a handler of chunks may ask of the transport that feeds it."""

    def is_current(self, chunk: Chunk) -> bool:
        """Tell whether the partition is still ours and was not sought since the fetch."""
        ...

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        """Fetch from ``offset`` on, unless the chunk's epoch is over already."""
        ...

    def begin(self, chunk: Chunk) -> None:
        """Say that the chunk is being handled: however long that takes, it is not lost."""
        ...

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        """Say that it no longer is, and up to where all is done, if that is known."""
        ...


Positions = Callable[[frozenset[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]
"""Where to read each partition from; one that is left out stays unread."""


class ChunkThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread: fetches chunks, and keeps the place of every partition."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.places: dict[TopicPartition, Place] = {}
        self.cut_off: set[TopicPartition] = set()
        self._doubted: dict[TopicPartition, int] = {}
        self._epochs = itertools.count(1)
        # A seek may not come between a fetch and its account.
        self._moving = asyncio.Lock()

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust's 1.5 s would let one partition with nothing new hold up the others so long.
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 - Faust offers no setting
        return consumer

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        # First, before anything is awaited: what is fetched now belongs to somebody else.
        self.places.clear()
        self.cut_off.clear()
        await super().on_partitions_revoked(revoked)

    async def getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> Any:
        # Copied here, in the main thread, which goes on changing it.
        wanted = frozenset(active_partitions or ())
        return await self.call_thread(self._fetch, wanted)

    async def _fetch(self, wanted: frozenset[TP]) -> dict[TopicPartition, list[Chunk]]:
        async with self._moving:
            ready = sorted(tp for tp in self.places if tp in wanted)
            if not ready or not self.consumer.flow_active:
                await asyncio.sleep(_NOTHING_READY_S)
                return {}
            try:
                found = await self._fetch_each(ready)
            except NoOffsetForPartitionError:
                return {}  # a rebalance came between; nobody has sought there yet
            except OffsetOutOfRangeError as error:
                self._cut_off(error)
                return {}
            chunks = {
                tp: self._account(tp, records)
                for tp, records in found.items()
                if records and tp in self.places
            }
            return {tp: [chunk] for tp, chunk in chunks.items() if chunk is not None}

    async def _fetch_each(
        self, ready: Sequence[TopicPartition]
    ) -> dict[TopicPartition, list[Record]]:
        """Fetch one chunk of every partition that has something."""
        consumer = self._ensure_consumer()
        found: dict[TopicPartition, list[Record]] = dict(
            await consumer.getmany(*ready, timeout_ms=_FETCH_WAIT_MS)
        )
        for tp in ready:
            if tp not in found:
                found |= await consumer.getmany(tp, timeout_ms=0)
        return found

    def _account(self, tp: TopicPartition, records: list[Record]) -> Chunk | None:
        """Make a chunk of what was fetched, and move the place behind it.

        Our topics have no holes. Where one shows all the same, the fetch is made again before it
        is believed: a position that was moved by anything but us must not pass for a hole.
        """
        place = self.places[tp]
        if records[0].offset != place.next and self._doubted.get(tp) != place.next:
            log.warning("unexpected-hole", topic=tp.topic, partition=tp.partition)
            self._doubted[tp] = place.next
            self._seek_to(tp, place.next)
            return None
        end = records[-1].offset + 1
        self.places[tp] = Place(place.epoch, end)
        return Chunk(tp.topic, tp.partition, place.next, end, place.epoch, records)

    def _cut_off(self, error: OffsetOutOfRangeError) -> None:
        """Read no more where the topic no longer has what we would have to read next."""
        for tp in error.args[0]:
            self.places.pop(tp, None)
            self.cut_off.add(tp)
            log.error("topic-shorter-than-progress", topic=tp.topic, partition=tp.partition)

    async def place(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read on from these offsets, in a new epoch each."""
        await self.call_thread(self._place, offsets)

    async def _place(self, offsets: Mapping[TopicPartition, int]) -> None:
        async with self._moving:
            for tp, offset in offsets.items():
                self._seek_to(tp, offset)

    async def rewind(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        """Read on from ``offset``, unless somebody has sought since ``epoch``."""
        await self.call_thread(self._rewind, tp, offset, epoch)

    async def _rewind(self, tp: TopicPartition, offset: int, epoch: int) -> None:
        async with self._moving:
            place = self.places.get(tp)
            if place is not None and place.epoch == epoch:
                self._seek_to(tp, offset)

    def _seek_to(self, tp: TopicPartition, offset: int) -> None:
        consumer = self._ensure_consumer()
        if tp in consumer.assignment():
            consumer.seek(tp, offset)
            self.places[tp] = Place(next(self._epochs), offset)

    async def commit_for_lag_tools(self, offsets: Mapping[TopicPartition, int]) -> None:
        try:
            await self.call_thread(self._ensure_consumer().commit, offsets)
        except KafkaError as error:
            log.info("offsets-not-committed", error=type(error).__name__)


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, placed by ``progress`` instead of by Kafka's committed offsets."""

    positions: Positions
    _thread: ChunkThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: dict[TopicPartition, int] = {}
        self._handling: set[TopicPartition] = set()
        self._still: dict[TopicPartition, tuple[tuple[int, int], float]] = {}
        self._placing: asyncio.Task[None] | None = None

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def places(self) -> Mapping[TopicPartition, Place]:
        return self._thread.places

    @property
    def cut_off(self) -> frozenset[TopicPartition]:
        """Partitions whose topic no longer holds what would have to be read next."""
        return frozenset(self._thread.cut_off)

    def lags(self) -> Mapping[TopicPartition, int]:
        """Return how many records of each partition are published and not yet done."""
        return {
            tp: max(0, self.highwater(tp) - done)
            for tp, done in self._done.items()
            if tp in self.places and self.highwater(tp) is not None
        }

    def is_current(self, chunk: Chunk) -> bool:
        place = self.places.get(chunk.tp)
        return place is not None and place.epoch == chunk.epoch

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        log.info("rewind", topic=chunk.topic, partition=chunk.partition, offset=offset)
        await self._thread.rewind(chunk.tp, offset, chunk.epoch)

    def begin(self, chunk: Chunk) -> None:
        self._handling.add(chunk.tp)

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        self._handling.discard(chunk.tp)
        if next_offset is not None:
            self._done[chunk.tp] = next_offset

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Place every assigned partition; Faust asks after each assignment and flow stop.

        It is not kept waiting: a partition without a place is not read, and the database that
        knows the place may be away for a while.
        """
        if self._placing is not None:
            self._placing.cancel()
        self._placing = asyncio.create_task(self._place_assigned())
        return {}

    async def _place_assigned(self) -> None:
        assigned = frozenset(TopicPartition(*tp) for tp in self.assignment())
        offsets = await self.positions(assigned)
        self._done |= offsets
        await self._thread.place(offsets)

    async def force_commit(
        self,
        topics: Any = None,
        start_new_transaction: bool = True,  # noqa: FBT001, FBT002 - Faust's signature
    ) -> bool:
        """Tell lag tools how far we are, and look for a last chunk that got lost.

        Faust calls it on its commit timer; nothing of ours depends on what Kafka keeps of it.
        """
        mine = {tp: done for tp, done in self._done.items() if tp in self.places}
        if mine:
            await self._thread.commit_for_lag_tools(mine)
        await self._look_for_lost_tails()
        return True

    async def _look_for_lost_tails(self) -> None:
        """Rewind where something was fetched, nobody handles it, and nothing moves.

        A lost chunk in the middle is betrayed by its successor; the last one has none.
        """
        now = time.monotonic()
        for tp, place in list(self.places.items()):
            done = self._done.get(tp, place.next)
            if place.next <= done or tp in self._handling:
                self._still.pop(tp, None)
                continue
            seen, since = self._still.get(tp, (None, now))
            if seen != (place.next, done):
                self._still[tp] = ((place.next, done), now)
            elif now - since >= _TAIL_LOST_AFTER_S:
                log.warning("tail-lost", topic=tp.topic, partition=tp.partition, offset=done)
                self._still.pop(tp, None)
                await self._thread.rewind(tp, done, place.epoch)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave out Faust's own stall report: it looks at acknowledgements, and there are none."""

    async def on_stop(self) -> None:
        if self._placing is not None:
            self._placing.cancel()
        await super().on_stop()


class ChunkTransport(driver.Transport):
    """Faust's Kafka transport, with chunks."""

    Consumer = ChunkConsumer


class PassThrough(faust.Schema[Any, Any]):
    """Gives the agent the chunk itself: decoding is the subscriber's."""

    def loads_key(self, app: Any, message: Any, **_kwargs: Any) -> Any:
        return message.key

    def loads_value(self, app: Any, message: Any, **_kwargs: Any) -> Any:
        return message.value
