"""Handles chunks: effects and progress in one transaction, so that each happens once.

Kafka and Faust may deliver a chunk twice, late, or not at all. The ``progress`` row in the
service's own database decides what is done with it: what lies before it is dropped, what leaves
a gap is refused and fetched again.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from enum import Enum, auto
from typing import Final, Generic, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import progress, telemetry
from chassis.failpoints import failpoint
from chassis.failures import FailedLately, MassFailure, is_permanent, is_transient, pause_s
from chassis.handling import Chunk, Feed, Handling, Refused
from chassis.lanes import Lanes, LeftAlone, Waiting
from chassis.parking import Failure, Parked, died
from chassis.progress import Span
from chassis.records import Record
from chassis.subscribers import Subscriber
from chassis.transactor import Work
from chassis.tries import Trial, Tries
from contracts.topics import Topic

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

#: A chunk that so many workers began and did not finish is handled event by event.
SUSPECT_AFTER: Final = 2
#: An event that failed so often for a reason nobody knows, or was begun so often by workers that
#: died, is parked.
MOST_TRIES: Final = 5

_CHUNK_TIMEOUT_S: Final = 20.0
_EVENT_TIMEOUT_S: Final = 10.0
# In a lane, which others wait for: after that each goes by itself.
_LANE_TIMEOUT_S: Final = 2.0
_LARGE_TIMEOUT_S: Final = 10.0
_WAIT_NOT_LONG_FOR_LOCKS: Final = text("SET LOCAL lock_timeout = '500ms'")
_TAKE_BACK_WITHIN_S: Final = 2.0


class _How(Enum):
    """How a chunk is handled; after a failure, by less at once."""

    TOGETHER = auto()
    BY_ITSELF = auto()
    EVENT_BY_EVENT = auto()


class AllPaused(Exception):
    """An operator has paused every subscriber; what came waits."""


class Consumer(Generic[W]):
    """All subscribers of one service to one topic."""

    def __init__(
        self,
        topic: Topic,
        subscribers: Sequence[Subscriber[W]],
        engine: AsyncEngine,
        open_work: Callable[[AsyncConnection], W],
        now: Callable[[], datetime],
        *,
        on_commit: Callable[[], None] = lambda: None,
        lanes: Lanes | None = None,
        most_events: int = 500,
    ) -> None:
        """Make a consumer.

        :param lanes: what the process may handle at once, where other consumers share it
        :param most_events: in one transaction, where chunks go together
        """
        self.topic = topic
        self.subscribers = subscribers
        self._engine = engine
        self._open_work = open_work
        self._now = now
        self._on_commit = on_commit
        self._lanes = lanes or Lanes()
        self._most_events = most_events
        self._tries = Tries(engine, topic.name, now)
        self._names = [each.name for each in subscribers]
        self._counted_in: dict[int, int] = {}
        self._failed_lately = FailedLately(topic.name)
        self._halted: str | None = None
        self._waiting: dict[int, str] = {}
        #: Which subscribers are paused, as far as is known here; their progress decides.
        self.paused: frozenset[str] = frozenset()

    def trouble(self) -> str | None:
        """Say why events of this topic are not handled, or None when they are."""
        if self._halted is not None:
            return self._halted
        said = [f"{name} is paused at {self.topic.name}" for name in sorted(self.paused)]
        waiting = [f"[{partition}] {error}" for partition, error in self._waiting.items()]
        if waiting:
            said.append(f"{self.topic.name} is tried again: {', '.join(waiting)}")
        return "; ".join(said) or None

    async def handle(self, chunk: Chunk, feed: Feed) -> None:
        """Handle a chunk until it is done, refused, or no longer ours.

        A cancelled task has rolled back: whoever has the partition next reads on from progress.

        :raises Exception: nothing that an event could be blamed for; the process must end
        """
        handling = Handling(chunk, feed)
        if not handling.is_ours():
            return
        done: int | None = None
        feed.begin(chunk)
        try:
            with telemetry.consumer_chunk_seconds.labels(self.topic.name).time():
                committed = await self._handle_until_done(handling)
                # Of a partition that was sought meanwhile something newer is known.
                done = committed if handling.is_ours() else None
        except Refused as refused:
            done = refused.next_offset
            await feed.rewind(chunk, refused.next_offset)
        except asyncio.CancelledError:
            log.info("chunk-left", topic=chunk.topic, partition=chunk.partition)
        except Exception:
            handling.begun.clear()  # these tries did end, and badly
            raise
        finally:
            self._waiting.pop(chunk.partition, None)
            feed.end(chunk, done)
            # What is left in good order is no mark against the event.
            await asyncio.shield(self._take_back(handling.begun))

    async def _handle_until_done(self, handling: Handling) -> int | None:
        """Return the next offset, or None when the chunk is no longer ours."""
        how = _How.TOGETHER
        failures = 0
        while handling.is_ours():
            if self._halted is not None:
                await handling.pause(1)
                continue
            try:
                if how is not _How.EVENT_BY_EVENT and await self._is_suspect(handling):
                    how, handling.is_suspect = _How.EVENT_BY_EVENT, True
                return await self._handle_as(how, handling)
            except Refused:
                raise
            except LeftAlone:
                how = _How.BY_ITSELF
            except AllPaused:
                await handling.pause(1)
            except MassFailure as error:
                # It stands still, in sight, until the process is started again.
                self._halted = str(error)
                log.error("consumer-halted", topic=self.topic.name, reason=self._halted)
            except Exception as error:  # noqa: BLE001 - what nobody can wait for is raised again
                failures += 1
                how = await self._how_after(error, failures, how, handling)
        return None

    async def _handle_as(self, how: _How, handling: Handling) -> int | None:
        if how is _How.EVENT_BY_EVENT:
            return await self._one_by_one(handling)
        if how is _How.BY_ITSELF:
            await self._commit([handling.chunk], within_s=_CHUNK_TIMEOUT_S)
        elif 2 * len(handling.chunk.records) > self._most_events:
            async with self._lanes.large:
                await self._lead(handling, (), within_s=_LARGE_TIMEOUT_S)
        else:
            await self._together(handling)
        handling.begun.clear()
        self._on_commit()
        return handling.chunk.end

    async def _how_after(
        self, error: Exception, failures: int, how: _How, handling: Handling
    ) -> _How:
        """Say how to go on, having waited where it is no event's fault."""
        if await is_transient(error, failures, self._engine):
            await self._wait(error, failures, handling)
            return how
        if how is _How.EVENT_BY_EVENT:
            raise error  # no event's failure but ours: the process ends, and begins again
        log.warning("chunk-failed", topic=self.topic.name, error=type(error).__name__)
        return _How.EVENT_BY_EVENT

    async def _is_suspect(self, handling: Handling) -> bool:
        """Tell whether workers died in this chunk; the first after each seek is counted."""
        chunk = handling.chunk
        if self._counted_in.get(chunk.partition) == chunk.epoch:
            return False
        trial = await self._tries.begin(chunk.partition, chunk.begin)
        handling.begun.append(trial)
        some_left = await self._tries.is_any_left(chunk.partition, chunk.begin, chunk.end)
        self._counted_in[chunk.partition] = chunk.epoch
        return some_left or trial.count > SUSPECT_AFTER

    async def _together(self, handling: Handling) -> None:
        """Handle the whole chunk in one transaction, with what else waits of the topic.

        :raises LeftAlone: it took long, or went with others and they failed
        """
        waiting = Waiting(self, handling)
        if not await self._lanes.turn(waiting):
            return
        company: Sequence[Waiting] = ()
        try:
            company = self._lanes.company(waiting, self._most_events)
            await self._lead(handling, company, within_s=_LANE_TIMEOUT_S)
        finally:
            for each in company:
                each.leave_alone()
            self._lanes.free()

    async def _lead(
        self, handling: Handling, company: Sequence[Waiting], *, within_s: float
    ) -> None:
        """Handle a chunk with those that were taken along, or none of them.

        :raises LeftAlone: it took long, went with others and they failed, or is no longer ours
        """
        if not handling.is_ours():
            raise LeftAlone
        ours = [each for each in company if each.handling.is_ours()]
        chunks = [handling.chunk, *(each.handling.chunk for each in ours)]
        try:
            await self._commit(chunks, within_s=within_s)
        except Exception as error:
            if not company and not isinstance(error, TimeoutError):
                raise
            log.info("left-alone", topic=self.topic.name, error=type(error).__name__)
            raise LeftAlone from error
        for each in ours:
            each.went()

    async def _commit(self, chunks: Sequence[Chunk], *, within_s: float) -> None:
        """Handle chunks of different partitions in one transaction."""
        async with asyncio.timeout(within_s), self._engine.begin() as connection:
            if len(chunks) > 1:
                # Whoever holds one of them up does not hold up the others for long.
                await connection.execute(_WAIT_NOT_LONG_FOR_LOCKS)
            places = await self._advance(
                connection, self._names, [Span(c.partition, c.begin, c.end) for c in chunks]
            )
            for chunk in chunks:
                hindmost = min(places[chunk.partition].values())
                if chunk.begin > hindmost:
                    raise Refused(hindmost)
            parked = await self._take(connection, chunks, places)
            await failpoint("park.before-commit" if parked else "chunk.before-commit")
        await failpoint("park.after-commit" if parked else "chunk.after-commit")

    async def _take(
        self,
        connection: AsyncConnection,
        chunks: Sequence[Chunk],
        places: dict[int, dict[str, int]],
    ) -> Sequence[Parked]:
        """Let each subscriber handle what of the chunks lies after its place."""
        work = self._open_work(connection)
        parked: list[Parked] = []
        for subscriber in self.subscribers:
            records = [
                record
                for chunk in chunks
                for record in chunk.records
                if record.offset >= places[chunk.partition].get(subscriber.name, chunk.end)
            ]
            if records:
                parked += await subscriber.take(work, connection, records, self._now)
        self._failed_lately.add(parked)
        await work.flush()
        return parked

    async def _one_by_one(self, handling: Handling) -> int | None:
        """Let each subscriber handle each event in a transaction of its own.

        So no event holds up the rest, nor what one subscriber makes of it another.
        """
        chunk = handling.chunk
        async with self._engine.connect() as connection:
            places = await progress.read_places(
                connection, self._names, self.topic.name, chunk.partition
            )
        if not places:
            raise AllPaused
        begin = chunk.begin
        for record in chunk.records:
            for subscriber in self.subscribers:
                place = places.get(subscriber.name, chunk.end)
                if place > record.offset:
                    continue
                async with self._lanes.suspect if handling.is_suspect else nullcontext():
                    if not await self._alone(subscriber, record, begin, handling):
                        return None
            begin = record.offset + 1
            handling.advance(begin)
        handling.begun.clear()
        return chunk.end

    async def _alone(
        self, subscriber: Subscriber[W], record: Record, begin: int, handling: Handling
    ) -> bool:
        """Handle or park one event; false when the chunk is no longer ours."""
        trial = await self._begin_trial(subscriber, record, handling)
        failure = died(trial.count - 1, trial.first_at) if trial.count > MOST_TRIES else None
        failures = 0
        while handling.is_ours():
            try:
                came_to_it = await self._alone_once(subscriber, record, begin, failure)
            except (Refused, MassFailure):
                raise
            except Exception as error:
                failures += 1
                if await is_transient(error, failures, self._engine):
                    await self._wait(error, failures, handling)
                    continue
                if failure is not None:
                    raise
                _log_failed(subscriber, record, error)
                if is_permanent(error) or trial.count >= MOST_TRIES:
                    failure = Failure.of(error, tries=trial.count, first_tried_at=trial.first_at)
                else:
                    await self._wait(error, failures, handling)
                    trial = await self._begin_trial(subscriber, record, handling)
            else:
                self._waiting.pop(record.partition, None)
                handling.begun.remove(trial)
                if not came_to_it:
                    await self._take_back([trial])
                self._on_commit()
                return True
        return False

    async def _alone_once(
        self, subscriber: Subscriber[W], record: Record, begin: int, failure: Failure | None
    ) -> bool:
        """Handle or park one event; false when the subscriber was paused meanwhile."""
        async with asyncio.timeout(_EVENT_TIMEOUT_S), self._engine.begin() as connection:
            span = Span(record.partition, begin, record.offset + 1)
            try:
                places = await self._advance(connection, [subscriber.name], [span])
            except AllPaused:
                return False
            place = places[record.partition][subscriber.name]
            if begin > place:
                raise Refused(place)
            if place > record.offset:
                return True
            work = self._open_work(connection)
            parked = await subscriber.take(work, connection, [record], self._now, failure)
            self._failed_lately.add(parked)
            await work.flush()
            await failpoint("park.before-commit" if parked else "event.before-commit")
        await failpoint("park.after-commit" if parked else "event.after-commit")
        return True

    async def _begin_trial(
        self, subscriber: Subscriber[W], record: Record, handling: Handling
    ) -> Trial:
        """Count one more try of an event; the one before it has ended, and stays counted."""
        trial = await self._tries.begin(record.partition, record.offset, subscriber.name)
        handling.begun[:] = [
            each
            for each in handling.begun
            if (each.subscriber, each.offset) != (trial.subscriber, trial.offset)
        ]
        handling.begun.append(trial)
        return trial

    async def _advance(
        self, connection: AsyncConnection, names: Sequence[str], spans: Sequence[Span]
    ) -> dict[int, dict[str, int]]:
        """Lock progress, move it to the ends, and return where those were that are not paused.

        :raises AllPaused: in some partition there are none
        """
        places = await progress.advance(connection, names, self.topic.name, spans, self._now())
        if not all(places.values()):
            raise AllPaused
        return places

    async def _wait(self, error: Exception, failures: int, handling: Handling) -> None:
        """Wait before the next try, in sight."""
        telemetry.consumer_retries.labels(self.topic.name).inc()
        self._waiting[handling.chunk.partition] = type(error).__name__
        await handling.pause(pause_s(failures))

    async def _take_back(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            try:
                async with asyncio.timeout(_TAKE_BACK_WITHIN_S):
                    await self._tries.take_back(trial)
            except Exception as error:  # noqa: BLE001 - the count errs on the careful side then
                log.info("try-not-taken-back", error=type(error).__name__)


def _log_failed(subscriber: Subscriber[W], record: Record, error: Exception) -> None:
    log.warning(
        "event-failed",
        subscriber=subscriber.name,
        partition=record.partition,
        offset=record.offset,
        error=type(error).__name__,
        exc_info=error,
    )
