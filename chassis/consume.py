"""Handles chunks: effects and progress in one transaction, so that each happens once.

Kafka and Faust may deliver a chunk twice, late, or not at all. The ``progress`` row in the
service's own database decides what is done with it: what lies before it is dropped, what leaves
a gap is refused and fetched again.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Generic, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import progress, telemetry
from chassis.failpoints import failpoint
from chassis.failures import FailedLately, MassFailure, is_permanent, is_transient, pause_s
from chassis.handling import Chunk, Feed, Handling, Refused
from chassis.parking import Failure, Parked, died
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
_TAKE_BACK_WITHIN_S: Final = 2.0


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
    ) -> None:
        self.topic = topic
        self.subscribers = subscribers
        self._engine = engine
        self._open_work = open_work
        self._now = now
        self._on_commit = on_commit
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
                done = await self._handle_until_done(handling)
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
        one_by_one = False
        failures = 0
        while handling.is_ours():
            if self._halted is not None:
                await handling.pause(1)
                continue
            try:
                one_by_one = one_by_one or await self._is_suspect(handling)
                if one_by_one:
                    return await self._one_by_one(handling)
                return await self._together(handling)
            except Refused:
                raise
            except AllPaused:
                await handling.pause(1)
            except MassFailure as error:
                # It stands still, in sight, until the process is started again.
                self._halted = str(error)
                log.error("consumer-halted", topic=self.topic.name, reason=self._halted)
            except Exception as error:
                failures += 1
                if await is_transient(error, failures, self._engine):
                    await self._wait(error, failures, handling)
                elif not one_by_one:
                    log.warning("chunk-failed", topic=self.topic.name, error=type(error).__name__)
                    one_by_one = True
                else:
                    raise  # no event's failure but ours: the process ends, and begins again
        return None

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

    async def _together(self, handling: Handling) -> int:
        """Handle the whole chunk in one transaction."""
        chunk = handling.chunk
        async with asyncio.timeout(_CHUNK_TIMEOUT_S), self._engine.begin() as connection:
            places = await self._advance(
                connection, self._names, chunk.partition, chunk.begin, chunk.end
            )
            if chunk.begin > min(places.values()):
                raise Refused(min(places.values()))
            work = self._open_work(connection)
            parked: list[Parked] = []
            behind = [s for s in self.subscribers if places.get(s.name, chunk.end) < chunk.end]
            for subscriber in behind:
                records = [r for r in chunk.records if r.offset >= places[subscriber.name]]
                parked += await subscriber.take(work, connection, records, self._now)
            self._failed_lately.add(parked)
            await work.flush()
            await failpoint("park.before-commit" if parked else "chunk.before-commit")
        await failpoint("park.after-commit" if parked else "chunk.after-commit")
        handling.begun.clear()
        self._on_commit()
        return chunk.end

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
                if place <= record.offset and not await self._alone(
                    subscriber, record, begin, handling
                ):
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
            end = record.offset + 1
            try:
                [place] = (
                    await self._advance(connection, [subscriber.name], record.partition, begin, end)
                ).values()
            except AllPaused:
                return False
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
        self,
        connection: AsyncConnection,
        names: Sequence[str],
        partition: int,
        begin: int,
        end: int,
    ) -> dict[str, int]:
        """Lock progress, move it to the end, and return where those were that are not paused.

        :raises AllPaused: there are none
        """
        places = await progress.advance(
            connection, names, self.topic.name, partition, begin, end, self._now()
        )
        if not places:
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
