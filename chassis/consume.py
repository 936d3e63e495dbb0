"""Handles chunks: effects and progress in one transaction, so that each happens once.

Kafka and Faust may deliver a chunk twice, late, or not at all. The ``progress`` row in the
service's own database decides what is done with it: what lies before it is dropped, what leaves
a gap is refused and fetched again.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import progress, telemetry
from chassis.chunks import Chunk, Feed
from chassis.database import is_connection_lost, is_worth_retrying
from chassis.domain import DomainError, Kind
from chassis.parking import Failure, Parked, Reason
from chassis.records import Record
from chassis.subscribers import Subscriber
from chassis.transactor import StaleAggregate, Work
from chassis.tries import Tries
from contracts.topics import Topic

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

#: A chunk that so many workers began and did not finish is handled event by event.
SUSPECT_AFTER: Final = 2
MOST_TRIES: Final = 5
#: So many aggregates parked with one error within a minute are no bad events but a bad deploy.
MASS_FAILURE: Final = 50
_MASS_FAILURE_WITHIN_S: Final = 60.0

_CHUNK_TIMEOUT_S: Final = 20.0
_EVENT_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_STOP_LOOK_S: Final = 0.1

_PERMANENT: Final = {Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND, Kind.FORBIDDEN}


class Refused(Exception):
    """A chunk that begins after what is done: something between them was not delivered."""

    def __init__(self, next_offset: int) -> None:
        super().__init__(next_offset)
        self.next_offset = next_offset


class MassFailure(Exception):
    """Too many aggregates would park with one error; stopped, so that a person looks first."""


class SubscriberFailed(Exception):
    """One subscriber could not handle an event, for a reason nobody knows yet."""

    def __init__(self, subscriber: str, error: Exception) -> None:
        super().__init__(subscriber)
        self.subscriber = subscriber
        self.error = error


@dataclass(frozen=True, slots=True)
class Trial:
    """A try that was counted and has not ended yet."""

    epoch: int
    offset: int
    count: int
    first_at: datetime


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
        self.halted: str | None = None
        self._engine = engine
        self._open_work = open_work
        self._now = now
        self._on_commit = on_commit
        self._tries = Tries(engine, topic.name, now)
        self._names = [each.name for each in subscribers]
        self._begun: dict[int, int] = {}
        self._trials: dict[int, Trial] = {}
        self._failed_lately: deque[tuple[float, str, str]] = deque()

    async def handle(self, chunk: Chunk, feed: Feed) -> None:
        """Handle a chunk until it is done, refused, or no longer ours; nothing else ends it.

        A cancelled task has rolled back: whoever has the partition next reads on from progress.
        """
        if not feed.is_current(chunk):
            return
        done: int | None = None
        feed.begin(chunk)
        try:
            with telemetry.consumer_chunk_seconds.labels(self.topic.name).time():
                done = await self._handle_until_done(chunk, feed)
        except Refused as refused:
            done = refused.next_offset
            await feed.rewind(chunk, refused.next_offset)
        except asyncio.CancelledError:
            log.info("chunk-left", topic=chunk.topic, partition=chunk.partition)
        finally:
            feed.end(chunk, done)
            trial = self._trials.pop(chunk.partition, None)
            if trial is not None and done is None:
                # Left in good order: that is no mark against the event.
                await asyncio.shield(self._take_back(trial, chunk.partition))

    async def _handle_until_done(self, chunk: Chunk, feed: Feed) -> int | None:
        """Return the next offset, or None when the chunk is no longer ours."""
        one_by_one = False
        failures = 0
        while feed.is_current(chunk):
            try:
                if not one_by_one and not await self._is_suspect(chunk):
                    return await self._together(chunk)
                return await self._one_by_one(chunk, feed)
            except (Refused, asyncio.CancelledError):
                raise
            except MassFailure as error:
                await self._halt(str(error), chunk, feed)
            except Exception as error:
                failures += 1
                telemetry.consumer_retries.labels(self.topic.name).inc()
                transient = await self._is_transient(error)
                if not transient and not one_by_one:
                    log.warning("chunk-failed", topic=chunk.topic, error=type(error).__name__)
                    one_by_one = True
                elif transient or is_connection_lost(error):
                    await self._pause(failures, chunk, feed)
                else:
                    raise  # no event's failure but ours: the process ends, and begins again
        return None

    async def _is_suspect(self, chunk: Chunk) -> bool:
        """Tell whether workers died in this chunk; the first after each seek is counted."""
        if self._begun.get(chunk.partition) == chunk.epoch:
            return False
        trial = await self._begin_trial(chunk, chunk.begin)
        self._begun[chunk.partition] = chunk.epoch
        return trial.count > SUSPECT_AFTER

    async def _begin_trial(self, chunk: Chunk, offset: int) -> Trial:
        count, first_at = await self._tries.begin(chunk.partition, offset)
        trial = Trial(chunk.epoch, offset, count, first_at)
        self._trials[chunk.partition] = trial
        return trial

    async def _take_back(self, trial: Trial, partition: int) -> None:
        try:
            await self._tries.take_back(partition, trial.offset)
        except Exception as error:  # noqa: BLE001 - the count errs on the careful side then
            log.info("try-not-taken-back", error=type(error).__name__)

    async def _together(self, chunk: Chunk) -> int:
        """Handle the whole chunk in one transaction."""
        async with asyncio.timeout(_CHUNK_TIMEOUT_S), self._engine.begin() as connection:
            places = await self._lock(connection, chunk.partition)
            if chunk.begin > min(places.values()):
                raise Refused(min(places.values()))
            work = self._open_work(connection)
            behind = [each for each in self.subscribers if places[each.name] < chunk.end]
            parked: list[Parked] = []
            for subscriber in behind:
                records = [r for r in chunk.records if r.offset >= places[subscriber.name]]
                parked += await subscriber.take(work, connection, records, self._now)
            self._look_for_mass_failure(parked)
            await work.flush()
            if behind:
                await self._advance(connection, behind, chunk.partition, chunk.end)
        self._on_commit()
        return chunk.end

    async def _one_by_one(self, chunk: Chunk, feed: Feed) -> int | None:
        """Handle each event in a transaction of its own, so that one cannot hold up the rest."""
        begin = chunk.begin
        for record in chunk.records:
            if not await self._alone(record, begin, chunk, feed):
                return None
            begin = record.offset + 1
        return chunk.end

    async def _alone(self, record: Record, begin: int, chunk: Chunk, feed: Feed) -> bool:
        """Handle or park one event; false when the chunk is no longer ours."""
        failures: dict[str, Failure] = {}
        attempt = 0
        trial = self._trials.get(chunk.partition)
        if trial is None or (trial.epoch, trial.offset) != (chunk.epoch, record.offset):
            trial = await self._begin_trial(chunk, record.offset)
        while feed.is_current(chunk):
            attempt += 1
            if trial.count > MOST_TRIES and not failures:
                failures = dict.fromkeys(self._names, _died(trial))
            try:
                await self._alone_once(record, begin, failures, trial)
            except SubscriberFailed as failed:
                if not await self._is_transient(failed.error):
                    if trial.count >= MOST_TRIES:
                        failures[failed.subscriber] = _failed(failed.error, trial)
                        continue
                    trial = await self._begin_trial(chunk, record.offset)
                await self._pause(attempt, chunk, feed)
            else:
                self._on_commit()
                return True
        return False

    async def _alone_once(
        self,
        record: Record,
        begin: int,
        failures: dict[str, Failure],
        trial: Trial,
    ) -> None:
        async with asyncio.timeout(_EVENT_TIMEOUT_S), self._engine.begin() as connection:
            places = await self._lock(connection, record.partition)
            if begin > min(places.values()):
                raise Refused(min(places.values()))
            behind = [each for each in self.subscribers if places[each.name] <= record.offset]
            parked: list[Parked] = []
            for subscriber in behind:
                failure = failures.get(subscriber.name)
                try:
                    parked += await self._take_alone(connection, subscriber, record, failure)
                except DomainError as error:
                    if error.kind not in _PERMANENT:
                        raise SubscriberFailed(subscriber.name, error) from error
                    failure = _failed(error, trial)
                    parked += await self._take_alone(connection, subscriber, record, failure)
            self._look_for_mass_failure(parked)
            if behind:
                await self._advance(connection, behind, record.partition, record.offset + 1)

    async def _take_alone(
        self,
        connection: AsyncConnection,
        subscriber: Subscriber[W],
        record: Record,
        failure: Failure | None,
    ) -> Sequence[Parked]:
        """Let one subscriber take one event, without harm to the others if it cannot."""
        try:
            async with connection.begin_nested():
                work = self._open_work(connection)
                parked = await subscriber.take(work, connection, [record], self._now, failure)
                await work.flush()
                return parked
        except DomainError:
            raise
        except Exception as error:
            log.warning(
                "event-failed",
                subscriber=subscriber.name,
                partition=record.partition,
                offset=record.offset,
                error=type(error).__name__,
                exc_info=True,
            )
            raise SubscriberFailed(subscriber.name, error) from error

    async def _lock(self, connection: AsyncConnection, partition: int) -> dict[str, int]:
        return await progress.lock(connection, self._names, self.topic.name, partition)

    async def _advance(
        self,
        connection: AsyncConnection,
        subscribers: Sequence[Subscriber[W]],
        partition: int,
        next_offset: int,
    ) -> None:
        names = [each.name for each in subscribers]
        await progress.advance(
            connection, names, self.topic.name, partition, next_offset, self._now()
        )
        await self._tries.forget(connection, partition, next_offset)

    async def _is_transient(self, error: Exception) -> bool:
        """Tell whether it was no fault of the event: another transaction, or a database away.

        Where a connection was lost and the database says it is well, the event is suspected.
        """
        if isinstance(error, StaleAggregate) or is_worth_retrying(error):
            return True
        if isinstance(error, SubscriberFailed):
            return await self._is_transient(error.error)
        return is_connection_lost(error) and not await self._database_answers()

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(2), self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except Exception:  # noqa: BLE001 - any failure is the answer no
            return False
        return True

    def _look_for_mass_failure(self, parked: Sequence[Parked]) -> None:
        now = time.monotonic()
        lately = self._failed_lately
        lately.extend((now, each.code, each.subject) for each in parked)
        while lately and now - lately[0][0] > _MASS_FAILURE_WITHIN_S:
            lately.popleft()
        for code in {each.code for each in parked}:
            subjects = {subject for _, seen, subject in lately if seen == code}
            if len(subjects) > MASS_FAILURE:
                raise MassFailure(
                    f"{len(subjects)} aggregates of {self.topic.name} would park with {code}"
                )

    async def _halt(self, reason: str, chunk: Chunk, feed: Feed) -> None:
        """Stand still, in sight, until the process is started again."""
        self.halted = reason
        log.error("consumer-halted", topic=self.topic.name, reason=reason)
        while feed.is_current(chunk):  # noqa: ASYNC110 - only the transport knows, and has no event
            await asyncio.sleep(_STOP_LOOK_S)

    async def _pause(self, failures: int, chunk: Chunk, feed: Feed) -> None:
        """Wait with capped exponential back-off and full jitter, no longer than we are asked to."""
        left = random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failures))  # noqa: S311
        while left > 0 and feed.is_current(chunk):
            step = min(left, _STOP_LOOK_S)
            await asyncio.sleep(step)
            left -= step


def _failed(error: Exception, trial: Trial) -> Failure:
    return Failure.of(error, tries=trial.count, first_tried_at=trial.first_at)


def _died(trial: Trial) -> Failure:
    """Say what is known of an event that nobody lived to report on."""
    return Failure(
        Reason.FAILED,
        "worker-died",
        "Every worker that began it died before it was done.",
        trial.count - 1,
        trial.first_at,
    )
