"""Replay: a subscriber that is far behind reads by itself until it has caught up with the others.

It has a reader of its own, which belongs to no consumer group, and its chunks are processed as the
agent's are: progress is locked and moved in the transaction of the effects. So it does no harm that
a replay and the agent, or two workers for a moment, read the same records.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol
from uuid import UUID

import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from chassis import telemetry
from chassis.consuming.careful_reading import CannotRead, CarefulReading, NoLongerHeld
from chassis.consuming.chunk import Chunk, ChunkSource
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.offsets import SubscriberOffset
from chassis.consuming.positions import FindPositions
from chassis.kafka.client import translate_foreign_cancellation
from chassis.kafka.partitions import consumer_without_group
from chassis.kafka.raw_fetch import RawFetch
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

# Each takes memory for its batches, and processor time from the agents.
_AT_ONCE: Final = 2
# Then another may have the place.
_TURN_S: Final = 60.0
_TRY_AGAIN_S: Final = 1.0
_NOTHING_NEW_S: Final = 0.1
_STOP_WITHIN_S: Final = 5.0


class SubscriberProcessor(Protocol):
    """Processes chunks for one subscriber alone."""

    def trouble(self) -> str | None: ...
    async def process(self, chunk: Chunk, source: ChunkSource) -> None: ...


class AgentPositions(Protocol):
    """Where the agents of this process are."""

    @property
    def topic_ids(self) -> Mapping[TopicPartition, UUID]:
        """Return the id of the topic of each partition that this process has."""
        ...

    @property
    def fetch_positions(self) -> Mapping[TopicPartition, object]:
        """Return those partitions that the agents read now."""
        ...

    def processed_up_to(self, tp: TopicPartition) -> int | None:
        """Return up to where a partition is processed; None: it is not known."""
        ...

    @property
    def positions(self) -> FindPositions:
        """Return what finds out where to read, and holds what Kafka no longer has."""
        ...


class Replays:
    """The replays of one worker: two at a time read, and the others wait.

    :param processor_for: makes the processor of one subscriber to a topic, for a replay alone
    """

    def __init__(
        self,
        settings: ServiceSettings,
        far_behind: FarBehind,
        processor_for: Callable[[str, str], SubscriberProcessor],
    ) -> None:
        self._settings = settings
        self.far_behind = far_behind
        self._processor_for = processor_for
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._pace = _Pace(settings.replay_events_per_s)
        self._running: dict[tuple[TopicPartition, str], tuple[_Replay, asyncio.Task[None]]] = {}

    def troubles(self) -> Sequence[str]:
        """Return why replays do not get on."""
        reasons = [replay.trouble() for replay, _ in self._running.values()]
        return sorted({each for each in reasons if each is not None})

    def follow(self, offsets: Sequence[SubscriberOffset], agents: AgentPositions) -> None:
        """Begin and end replays by what progress says now.

        :raises Exception: a replay failed, for a reason that no event could be blamed for
        """
        ours = agents.topic_ids
        found = [each for each in offsets if each.tp in ours]
        self.far_behind.look({*ours, *self.far_behind.partitions()}, found)
        left = {
            (each.tp, each.subscriber): each.next_offset
            for each in found
            if each.subscriber in self.far_behind.at(each.tp)
        }
        for key, (replay, task) in list(self._running.items()):
            if task.done():
                del self._running[key]
                if not task.cancelled():
                    task.result()
            elif key in left and replay.topic_id == ours[replay.tp]:
                replay.see(left[key])
            else:
                replay.stop()
                if not replay.has_place:
                    task.cancel()
        for tp, subscriber in left.keys() - self._running.keys():
            self._begin(tp, subscriber, left[tp, subscriber], ours[tp], agents)

    async def close(self) -> None:
        """End all replays; a chunk in progress is finished, or rolled back where it takes long."""
        tasks = [task for _, task in self._running.values()]
        for replay, _ in self._running.values():
            replay.stop()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_STOP_WITHIN_S)
            for task in left:
                task.cancel()
            await asyncio.wait(tasks)
        self._running.clear()

    def _begin(
        self,
        tp: TopicPartition,
        subscriber: str,
        offset: int,
        topic_id: UUID,
        agents: AgentPositions,
    ) -> None:
        replay = _Replay(
            self._settings,
            subscriber,
            tp,
            offset,
            topic_id,
            self._processor_for(tp.topic, subscriber),
            agents,
            self._pace,
            self._places,
        )
        task = asyncio.create_task(self._run(replay))
        self._running[tp, subscriber] = replay, task

    async def _run(self, replay: "_Replay") -> None:
        place = {"subscriber": replay.subscriber, "topic": replay.tp.topic}
        shown = telemetry.consumer_replaying.labels(*place.values())
        place["partition"] = str(replay.tp.partition)
        shown.inc()
        try:
            log.info("replay-begun", offset=replay.next, **place)
            await replay.run(near=min(self._settings.chunk_max_events, self.far_behind.events // 2))
            log.info("replay-ended", offset=replay.next, **place)
        finally:
            shown.dec()
            self.far_behind.forget(replay.tp, replay.subscriber)


class _Pace:
    """Keeps all replays of a process together to a rate."""

    def __init__(self, events_per_s: float) -> None:
        self._events_per_s = events_per_s
        self._free_at = 0.0

    def pause_s(self, events: int) -> float:
        """Count so many events, and return how long to wait before there may be more."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + events / self._events_per_s
        return self._free_at - now


class _Replay:
    """The replay of one partition by one subscriber; the source of its processor's chunks."""

    def __init__(
        self,
        settings: ServiceSettings,
        subscriber: str,
        tp: TopicPartition,
        offset: int,
        topic_id: UUID,
        processor: SubscriberProcessor,
        agents: AgentPositions,
        pace: _Pace,
        places: asyncio.Semaphore,
    ) -> None:
        self.subscriber = subscriber
        self.tp = tp
        self.next = offset
        self.topic_id = topic_id
        self.has_place = False
        self._settings = settings
        self._processor = processor
        self._agents = agents
        self._pace = pace
        self._places = places
        self._careful = CarefulReading()
        self._unread: str | None = None
        self._away: str | None = None
        self._not_before = 0.0
        self._epoch = 1
        self._stopping = asyncio.Event()

    def trouble(self) -> str | None:
        """Return why it does not get on, or None when it does."""
        reason = (
            self._unread
            or self._away
            or self._careful.reason(self.tp)
            or (self._processor.trouble() if self.has_place else "it waits for its turn")
        )
        where = f"{self.subscriber} replays {self.tp.topic}[{self.tp.partition}]"
        return None if reason is None else f"{where}: {reason}"

    def stop(self) -> None:
        """Let ``run`` return, once the chunk in progress is finished."""
        self._stopping.set()

    def see(self, offset: int) -> None:
        """Read on from progress where an operator has moved it over what can't be read."""
        # Else a chunk may be in progress, which moves both.
        if self._unread is not None and offset > self.next:
            self._go_to(offset)

    async def run(self, near: int) -> None:
        """Read and process until the agent is near, or until stopped.

        :param near: so many offsets the agent goes back then
        :raises Exception: nothing that an event could be blamed for; the process must end
        """
        while not self._is_over(near):
            if time.monotonic() >= max(self._not_before, self._careful.next_at(self.tp)):
                async with self._places:
                    self.has_place = True
                    try:
                        await self._take_turn(near)
                    finally:
                        self.has_place = False
            # Without the place, which others may wait for.
            await self._pause(_NOTHING_NEW_S)

    def _is_over(self, near: int) -> bool:
        """Tell whether it is stopped, or the agent reads on from near here.

        Where the agent has given up, the replay comes there too, so that one act moves both.
        """
        position = self._agents.processed_up_to(self.tp)
        is_near = position is not None and position - self.next <= near
        return self._stopping.is_set() or (is_near and self.tp in self._agents.fetch_positions)

    async def _take_turn(self, near: int) -> None:
        """Read for a while, unless the replay is over, or can't get on, before that."""
        until = time.monotonic() + _TURN_S
        try:
            with translate_foreign_cancellation():
                async with consumer_without_group(self._settings) as consumer:
                    await consumer.beginning_offsets([self.tp])  # it learns the leader by that
                    self._away = None
                    while not self._is_over(near) and time.monotonic() < until:
                        if not await self._read(consumer._client):  # noqa: SLF001 - see raw_fetch
                            return
        except KafkaError as error:
            self._not_before = time.monotonic() + _TRY_AGAIN_S
            self._away = f"Kafka does not answer: {type(error).__name__}"
            log.info("replay-waits", topic=self.tp.topic, error=type(error).__name__)

    async def _read(self, client: AIOKafkaClient) -> bool:
        """Read and process what comes next; false: that can't be had now."""
        if (fetched := await self._fetch(client)) is None:
            return False
        if fetched.end == self.next:
            await self._pause(_NOTHING_NEW_S)
        for chunk in self._chunks_of(fetched, self._epoch):
            if not self.is_current(chunk):
                break
            await self._processor.process(chunk, self)
            await self._pause(self._pace.pause_s(len(chunk.records)))
        return True

    async def _fetch(self, client: AIOKafkaClient) -> RawFetch | None:
        """Return what comes next; None: it is to be tried later, or not here any more."""
        self._careful.start([self.tp])
        offset, epoch = self.next, self._epoch
        try:
            fetched = await self._careful.read(client, self.tp, offset)
        except NoLongerHeld:
            # Progress is held by that, and this replay is stopped then.
            await self._agents.positions(frozenset([self.tp]))
            self._not_before = time.monotonic() + _TRY_AGAIN_S
            return None
        except CannotRead as error:
            if self._unread is None:
                log.error(
                    "partition-given-up",
                    topic=self.tp.topic,
                    partition=self.tp.partition,
                    offset=offset,
                    reason=str(error),
                )
            self._unread = f"it can't be read at offset {offset}: {error}"
            self._careful.look_again(self.tp)
            return None
        if fetched is not None and epoch == self._epoch:
            self._unread = None
        return fetched if epoch == self._epoch else None

    def _chunks_of(self, fetched: RawFetch, epoch: int) -> Iterator[Chunk]:
        """Yield what was fetched in this epoch, in chunks that one transaction handles."""
        most, begin, records = self._settings.chunk_max_events, self.next, fetched.records
        for first in range(0, len(records), most) or [0]:
            part = records[first : first + most]
            is_last = first + most >= len(records)
            end = fetched.end if is_last else part[-1].offset + 1
            if begin < end:
                yield Chunk(
                    self.tp.topic,
                    self.tp.partition,
                    begin,
                    end,
                    epoch,
                    part,
                    self.topic_id,
                )
            begin = end

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _go_to(self, offset: int) -> None:
        self.next, self._unread = offset, None
        self._epoch += 1
        self._careful.clear()

    # What the processor asks of the source of its chunks.

    def is_current(self, chunk: Chunk) -> bool:
        return not self._stopping.is_set() and chunk.epoch == self._epoch

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        self._go_to(offset)

    async def leave(self, chunk: Chunk) -> None:
        self.stop()

    def begin(self, chunk: Chunk) -> None:
        """Do nothing: no chunk of a replay is fetched ahead, so none gets lost."""

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        self.next = next_offset

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        if next_offset is not None:
            self.next = next_offset
