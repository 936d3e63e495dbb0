"""Processes the events of a chunk that failed, each in a transaction of its own.

So no event holds up the rest, and no subscriber another. Before the first event parks, the chunk is
rehearsed: where more aggregates would park than may, none does.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import structlog

from chassis.consuming import offsets, retry_policy
from chassis.consuming.aggregates import lock_aggregates
from chassis.consuming.attempts import Attempt, Attempts
from chassis.consuming.chunk import Chunk, ChunkInProgress, ChunkRefused
from chassis.consuming.dead_letter_limit import DeadLetterLimit, LimitExceeded
from chassis.consuming.dead_letters import (
    Failure,
    ParkedSubject,
    logged_when_parked,
    worker_died,
)
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.offsets import AllHeld, AllPaused, OffsetRange
from chassis.consuming.records import Record
from chassis.consuming.retries import Retries
from chassis.consuming.retry_policy import Cause, Failures
from chassis.consuming.subscribers import Subscriber
from chassis.failpoints import failpoint
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Work

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

#: An event that failed so often for an unknown reason, or was begun so often by workers that
#: died, is parked.
MOST_TRIES: Final = 5

_EVENT_TIMEOUT_S: Final = 10.0
_REHEARSAL_TIMEOUT_S: Final = 20.0


class SingleEvents(Generic[W]):
    """Processes chunks of one topic event by event.

    :param suspects: held while an event is tried that a worker may have died of
    :param far_behind: which of the subscribers are left to a replay
    """

    def __init__(
        self,
        topic: str,
        subscribers: Sequence[Subscriber[W]],
        database: Database,
        open_work: Callable[[Connection], W],
        now: Callable[[], datetime],
        *,
        attempts: Attempts,
        retries: Retries,
        limit: DeadLetterLimit,
        suspects: asyncio.Lock,
        far_behind: FarBehind,
    ) -> None:
        self._topic = topic
        self._subscribers = subscribers
        self._database = database
        self._open_work = open_work
        self._now = now
        self._attempts = attempts
        self._retries = retries
        self._limit = limit
        self._suspects = suspects
        self._far_behind = far_behind

    async def process(self, in_progress: ChunkInProgress) -> int | None:
        """Let each subscriber handle each event; return the next offset, or None: not ours.

        :raises LimitExceeded: too many aggregates would park; none does
        :raises ChunkRefused: the chunk begins after a subscriber's offset
        :raises AllPaused: all subscribers are
        :raises AllHeld: all subscribers are, or one came to be
        :raises Exception: nothing that an event could be blamed for
        """
        chunk = in_progress.chunk
        async with self._database.connect() as connection:
            found = await offsets.read_offsets(
                connection,
                [each.name for each in self._subscribers],
                self._topic,
                chunk.partition,
                chunk.topic_id,
            )
        far = self._far_behind.at(chunk.tp)
        found = {name: offset for name, offset in found.items() if name not in far}
        if not found:
            raise AllPaused  # but for those that are left to a replay
        found = self._far_behind.at_chunk(chunk, found)
        if not in_progress.is_suspect and not in_progress.is_rehearsed:
            await self._rehearse(in_progress, found)
            in_progress.is_rehearsed = True
        processed = dict.fromkeys(found, chunk.begin)
        all_done = await _together(
            self._process_events(subscriber, found[subscriber.name], processed, in_progress)
            for subscriber in self._subscribers
            if subscriber.name in found
        )
        if not all(all_done):
            return None
        in_progress.attempts.clear()
        return chunk.end

    async def _process_events(
        self,
        subscriber: Subscriber[W],
        next_offset: int,
        processed: dict[str, int],
        in_progress: ChunkInProgress,
    ) -> bool:
        """Let one subscriber handle event after event; false when the chunk is no longer ours.

        :param processed: up to where each subscriber is
        """
        for record in in_progress.chunk.records:
            if record.offset >= next_offset:
                begin = processed[subscriber.name]
                async with self._suspects if in_progress.is_suspect else nullcontext():
                    if not await self._process_event(subscriber, record, begin, in_progress):
                        return False
            processed[subscriber.name] = record.offset + 1
            in_progress.advance(min(processed.values()))
        return await self._pass_over_rest(subscriber, processed, in_progress)

    async def _pass_over_rest(
        self, subscriber: Subscriber[W], processed: dict[str, int], in_progress: ChunkInProgress
    ) -> bool:
        """Move progress over the offsets behind the last record, which hold none."""
        chunk, begin = in_progress.chunk, processed[subscriber.name]
        if begin == chunk.end:
            return True
        if not in_progress.is_ours():
            return False
        rest = OffsetRange(chunk.partition, begin, chunk.end, chunk.topic_id)
        with suppress(AllPaused):
            async with self._database.begin() as connection:
                await offsets.advance(
                    connection, [subscriber.name], self._topic, [rest], self._now()
                )
        processed[subscriber.name] = chunk.end
        return True

    async def _rehearse(self, in_progress: ChunkInProgress, found: Mapping[str, int]) -> None:
        """Find out how many aggregates would park, before the first of them does.

        :raises LimitExceeded: too many; none is parked
        """
        tries = 0
        while in_progress.is_ours():
            deadline = asyncio.timeout(_REHEARSAL_TIMEOUT_S)
            try:
                async with deadline:
                    would_park = await self._would_park(in_progress.chunk, found)
            except Exception:
                if deadline.expired():
                    return  # the limit is kept all the same, event by event
                raise
            try:
                with self._limit.reservation() as reserve:
                    reserve(would_park)
            except LimitExceeded as error:
                tries += 1
                if error.code != Failure.UNEXPECTED or tries >= MOST_TRIES:
                    raise
                await in_progress.pause(retry_policy.BACKOFF.pause_s(tries))
            else:
                return

    async def _would_park(self, chunk: Chunk, found: Mapping[str, int]) -> Sequence[ParkedSubject]:
        """Handle each event under a savepoint, in a transaction that is rolled back."""
        would_park: list[ParkedSubject] = []
        async with self._database.begin_rolled_back() as connection:
            for subscriber in self._subscribers:
                for record in chunk.records:
                    if record.offset >= found.get(subscriber.name, chunk.end):
                        would_park += await self._rehearse_event(connection, subscriber, record)
        return would_park

    async def _rehearse_event(
        self, connection: Connection, subscriber: Subscriber[W], record: Record
    ) -> Sequence[ParkedSubject]:
        failure: Failure | None = None
        while True:
            try:
                async with connection.begin_nested():
                    work = self._open_work(connection)
                    await lock_aggregates(work, [(subscriber, [record])])
                    parked = await subscriber.take(work, connection, [record], self._now, failure)
                    await work.flush()
                    return parked
            except Exception as error:
                cause = await Failures(self._database).add(error)
                if cause is Cause.CONTENTION:
                    return ()  # it does not park for that
                if failure is not None or cause is Cause.DEPENDENCY:
                    raise
                failure = Failure.of(error, tries=1, first_tried_at=self._now())

    async def _process_event(
        self, subscriber: Subscriber[W], record: Record, begin: int, in_progress: ChunkInProgress
    ) -> bool:
        """Handle or park one event; false when the chunk is no longer ours."""
        event = OffsetRange(record.partition, begin, record.offset + 1, in_progress.chunk.topic_id)
        attempt = await self._begin_attempt(subscriber, record, in_progress)
        failure = (
            worker_died(attempt.count - 1, attempt.first_at) if attempt.count > MOST_TRIES else None
        )
        failures = Failures(self._database)
        while in_progress.is_ours():
            try:
                was_tried = await self._try_event(subscriber, record, event, failure)
            except (ChunkRefused, LimitExceeded, AllHeld):
                raise
            except Exception as error:
                cause = await failures.add(error)
                if cause.is_transient:
                    await self._retries.wait(in_progress, failures, subscriber.name)
                    continue
                if failure is not None:
                    raise
                _log_failed(subscriber, record, error)
                if cause is Cause.EVENT or attempt.count >= MOST_TRIES:
                    failure = Failure.of(
                        error, tries=attempt.count, first_tried_at=attempt.first_at
                    )
                else:
                    await self._retries.wait(in_progress, failures, subscriber.name)
                    attempt = await self._begin_attempt(subscriber, record, in_progress)
            else:
                self._retries.end(record.partition, subscriber.name)
                in_progress.attempts.remove(attempt)
                if not was_tried:
                    await self._attempts.undo_all([attempt])
                return True
        return False

    async def _try_event(
        self,
        subscriber: Subscriber[W],
        record: Record,
        event: OffsetRange,
        failure: Failure | None,
    ) -> bool:
        """Handle or park one event; false when the subscriber was paused meanwhile."""
        parked: Sequence[ParkedSubject] = ()
        try:
            with self._limit.reservation() as reserve, logged_when_parked():
                async with asyncio.timeout(_EVENT_TIMEOUT_S), self._database.begin() as connection:
                    if await self._is_next(connection, subscriber, record, event):
                        work = self._open_work(connection)
                        await lock_aggregates(work, [(subscriber, [record])])
                        parked = await subscriber.take(
                            work, connection, [record], self._now, failure
                        )
                        reserve(parked)
                        await work.flush()
                        await failpoint("park.before-commit" if parked else "event.before-commit")
        except AllPaused:
            return False
        await failpoint("park.after-commit" if parked else "event.after-commit")
        return True

    async def _is_next(
        self,
        connection: Connection,
        subscriber: Subscriber[W],
        record: Record,
        event: OffsetRange,
    ) -> bool:
        """Lock progress and move it over the record; false where it was processed before.

        :raises AllPaused: the subscriber is paused
        :raises AllHeld: the subscriber is held
        :raises ChunkRefused: something before the record is not processed
        """
        before = await offsets.advance(
            connection, [subscriber.name], self._topic, [event], self._now()
        )
        next_offset = before[record.partition][subscriber.name]
        if event.begin > next_offset:
            raise ChunkRefused(next_offset)
        return next_offset <= record.offset

    async def _begin_attempt(
        self, subscriber: Subscriber[W], record: Record, in_progress: ChunkInProgress
    ) -> Attempt:
        """Count one more attempt; the one before it has ended, and stays counted."""
        attempt = await self._attempts.begin(
            in_progress.chunk.topic_id, record.partition, record.offset, subscriber.name
        )
        in_progress.attempts[:] = [
            each
            for each in in_progress.attempts
            if (each.subscriber, each.offset) != (attempt.subscriber, attempt.offset)
        ]
        in_progress.attempts.append(attempt)
        return attempt


def _log_failed(subscriber: Subscriber[W], record: Record, error: Exception) -> None:
    log.warning(
        "event-failed",
        subscriber=subscriber.name,
        partition=record.partition,
        offset=record.offset,
        error=type(error).__name__,
        exc_info=error,
    )


async def _together(work: Iterable[Coroutine[Any, Any, bool]]) -> Sequence[bool]:
    """Do all of it at once; the first error ends the others, and is raised when they have ended."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks if not task.cancelled()]
    for error in errors:
        if error is not None:
            raise error
    return [task.result() for task in tasks]
