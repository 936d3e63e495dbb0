"""Processes chunks: effects and offsets in one transaction, so that each happens once.

Kafka and Faust may deliver a chunk twice, late, or not at all. The ``progress`` row in the
service's own database decides what is done with it: what lies before it is dropped, what leaves
a gap is refused and fetched again.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Final, Generic, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis import telemetry
from chassis.consuming import offsets, retry_policy
from chassis.consuming.attempts import Attempt, Attempts
from chassis.consuming.chunk import Chunk, ChunkInProgress, ChunkRefused, ChunkSource
from chassis.consuming.dead_letters import Failure, ParkedSubject, worker_died
from chassis.consuming.group_commit import GroupCommit
from chassis.consuming.offsets import OffsetRange
from chassis.consuming.records import Record
from chassis.consuming.retry_policy import (
    DeadLetterLimit,
    LimitExceeded,
    is_permanent,
    is_transient,
)
from chassis.consuming.subscribers import Subscriber
from chassis.failpoints import failpoint
from chassis.persistence.transactor import Work
from contracts.topics import Topic

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

#: A chunk that so many workers began and did not finish is handled event by event.
SUSPECT_AFTER: Final = 2
#: An event that failed so often for an unknown reason, or was begun so often by workers that
#: died, is parked.
MOST_TRIES: Final = 5

_EVENT_TIMEOUT_S: Final = 10.0
_SHORT_LOCK_TIMEOUT: Final = text("SET LOCAL lock_timeout = '500ms'")
_UNDO_WITHIN_S: Final = 2.0


class AllPaused(Exception):
    """An operator has paused every subscriber; what came waits."""


class ChunkProcessor(Generic[W]):
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
        group_commit: GroupCommit | None = None,
        suspects: asyncio.Lock | None = None,
    ) -> None:
        """Make a processor.

        :param group_commit: of all processors of the process
        :param suspects: held by the processor that tries an event that a worker may have died of
        """
        self.topic = topic
        self.subscribers = subscribers
        self._engine = engine
        self._open_work = open_work
        self._now = now
        self._on_commit = on_commit
        self._group_commit = group_commit or GroupCommit()
        self._suspects = suspects or asyncio.Lock()
        self._attempts = Attempts(engine, topic.name, now)
        self._names = [each.name for each in subscribers]
        self._counted_in: dict[int, int] = {}
        self._dead_letter_limit = DeadLetterLimit(topic.name)
        self._halted: str | None = None
        self._waiting: dict[int, str] = {}
        #: Which subscribers are paused, as far as is known here; their progress decides.
        self.paused: frozenset[str] = frozenset()

    def trouble(self) -> str | None:
        """Return why events of this topic are not handled, or None when they are."""
        if self._halted is not None:
            return self._halted
        reasons = [f"{name} is paused at {self.topic.name}" for name in sorted(self.paused)]
        waiting = [f"[{partition}] {error}" for partition, error in self._waiting.items()]
        if waiting:
            reasons.append(f"{self.topic.name} is tried again: {', '.join(waiting)}")
        return "; ".join(reasons) or None

    async def process(self, chunk: Chunk, source: ChunkSource) -> None:
        """Process a chunk until it is committed, refused, or no longer ours.

        A cancelled task has rolled back: whoever has the partition next reads on from progress.

        :raises Exception: nothing that an event could be blamed for; the process must end
        """
        in_progress = ChunkInProgress(chunk, source)
        if not in_progress.is_ours():
            return
        next_offset: int | None = None
        source.begin(chunk)
        try:
            with telemetry.consumer_chunk_seconds.labels(self.topic.name).time():
                committed = await self._process_until_committed(in_progress)
                # Of a partition that was sought meanwhile something newer is known.
                next_offset = committed if in_progress.is_ours() else None
        except ChunkRefused as refused:
            next_offset = refused.next_offset
            await source.rewind(chunk, refused.next_offset)
        except asyncio.CancelledError:
            log.info("chunk-left", topic=chunk.topic, partition=chunk.partition)
        except Exception:
            in_progress.attempts.clear()  # these attempts did end, and badly
            raise
        finally:
            self._waiting.pop(chunk.partition, None)
            source.end(chunk, next_offset)
            # An attempt that was given up in good order does not count against the event.
            await asyncio.shield(self._undo(in_progress.attempts))

    async def _process_until_committed(self, in_progress: ChunkInProgress) -> int | None:
        """Return the next offset, or None when the chunk is no longer ours."""
        failures = 0
        while in_progress.is_ours():
            if self._halted is not None:
                await in_progress.pause(1)
                continue
            try:
                return await self._process_once(in_progress)
            except ChunkRefused:
                raise
            except AllPaused:
                await in_progress.pause(1)
            except LimitExceeded as error:
                # It stands still, and says so, until the process is started again.
                self._halted = str(error)
                log.error("consumer-halted", topic=self.topic.name, reason=self._halted)
            except Exception as error:
                failures += 1
                if await is_transient(error, failures, self._engine):
                    await self._wait(error, failures, in_progress)
                elif in_progress.event_by_event:
                    raise  # no event's failure but ours: the process ends, and begins again
                else:
                    log.warning("chunk-failed", topic=self.topic.name, error=type(error).__name__)
                    in_progress.event_by_event = True
        return None

    async def _process_once(self, in_progress: ChunkInProgress) -> int | None:
        if not in_progress.event_by_event and await self._is_suspect(in_progress):
            in_progress.event_by_event = in_progress.is_suspect = True
        if in_progress.event_by_event:
            return await self._process_one_by_one(in_progress)
        return await self._process_whole(in_progress)

    async def _process_whole(self, in_progress: ChunkInProgress) -> int | None:
        if not await self._group_commit.commit(in_progress, self._commit):
            return None
        in_progress.attempts.clear()
        self._on_commit()
        return in_progress.chunk.end

    async def _is_suspect(self, in_progress: ChunkInProgress) -> bool:
        """Tell whether workers died in this chunk; the first after each seek is counted."""
        chunk = in_progress.chunk
        if self._counted_in.get(chunk.partition) == chunk.epoch:
            return False
        attempt = await self._attempts.begin(chunk.partition, chunk.begin)
        in_progress.attempts.append(attempt)
        some_left = await self._attempts.is_any_left(chunk.partition, chunk.begin, chunk.end)
        self._counted_in[chunk.partition] = chunk.epoch
        return some_left or attempt.count > SUSPECT_AFTER

    async def _commit(self, chunks: Sequence[Chunk], *, within_s: float) -> None:
        """Handle chunks of different partitions in one transaction."""
        async with asyncio.timeout(within_s), self._engine.begin() as connection:
            if len(chunks) > 1:
                # Whoever holds one of them up does not hold up the others for long.
                await connection.execute(_SHORT_LOCK_TIMEOUT)
            before = await self._advance(
                connection, self._names, [OffsetRange(c.partition, c.begin, c.end) for c in chunks]
            )
            for chunk in chunks:
                lowest = min(before[chunk.partition].values())
                if chunk.begin > lowest:
                    raise ChunkRefused(lowest)
            parked = await self._take(connection, chunks, before)
            await failpoint("park.before-commit" if parked else "chunk.before-commit")
        await failpoint("park.after-commit" if parked else "chunk.after-commit")

    async def _take(
        self,
        connection: AsyncConnection,
        chunks: Sequence[Chunk],
        before: dict[int, dict[str, int]],
    ) -> Sequence[ParkedSubject]:
        """Let each subscriber handle what of the chunks lies at or after its offset."""
        work = self._open_work(connection)
        parked: list[ParkedSubject] = []
        for subscriber in self.subscribers:
            records = [
                record
                for chunk in chunks
                for record in chunk.records
                if record.offset >= before[chunk.partition].get(subscriber.name, chunk.end)
            ]
            if records:
                parked += await subscriber.take(work, connection, records, self._now)
        self._dead_letter_limit.add(parked)
        await work.flush()
        return parked

    async def _process_one_by_one(self, in_progress: ChunkInProgress) -> int | None:
        """Let each subscriber handle each event in a transaction of its own.

        So no event holds up the rest, nor what one subscriber makes of it another.
        """
        chunk = in_progress.chunk
        async with self._engine.connect() as connection:
            found = await offsets.read_offsets(
                connection, self._names, self.topic.name, chunk.partition
            )
        if not found:
            raise AllPaused
        begin = chunk.begin
        for record in chunk.records:
            for subscriber in self.subscribers:
                if found.get(subscriber.name, chunk.end) > record.offset:
                    continue
                async with self._suspects if in_progress.is_suspect else nullcontext():
                    if not await self._process_event(subscriber, record, begin, in_progress):
                        return None
            begin = record.offset + 1
            in_progress.advance(begin)
        in_progress.attempts.clear()
        return chunk.end

    async def _process_event(
        self, subscriber: Subscriber[W], record: Record, begin: int, in_progress: ChunkInProgress
    ) -> bool:
        """Handle or park one event; false when the chunk is no longer ours."""
        attempt = await self._begin_attempt(subscriber, record, in_progress)
        failure = (
            worker_died(attempt.count - 1, attempt.first_at) if attempt.count > MOST_TRIES else None
        )
        failures = 0
        while in_progress.is_ours():
            try:
                was_tried = await self._try_event(subscriber, record, begin, failure)
            except (ChunkRefused, LimitExceeded):
                raise
            except Exception as error:
                failures += 1
                if await is_transient(error, failures, self._engine):
                    await self._wait(error, failures, in_progress)
                    continue
                if failure is not None:
                    raise
                _log_failed(subscriber, record, error)
                if is_permanent(error) or attempt.count >= MOST_TRIES:
                    failure = Failure.of(
                        error, tries=attempt.count, first_tried_at=attempt.first_at
                    )
                else:
                    await self._wait(error, failures, in_progress)
                    attempt = await self._begin_attempt(subscriber, record, in_progress)
            else:
                self._waiting.pop(record.partition, None)
                in_progress.attempts.remove(attempt)
                if not was_tried:
                    await self._undo([attempt])
                self._on_commit()
                return True
        return False

    async def _try_event(
        self, subscriber: Subscriber[W], record: Record, begin: int, failure: Failure | None
    ) -> bool:
        """Handle or park one event; false when the subscriber was paused meanwhile."""
        async with asyncio.timeout(_EVENT_TIMEOUT_S), self._engine.begin() as connection:
            event = OffsetRange(record.partition, begin, record.offset + 1)
            try:
                before = await self._advance(connection, [subscriber.name], [event])
            except AllPaused:
                return False
            next_offset = before[record.partition][subscriber.name]
            if begin > next_offset:
                raise ChunkRefused(next_offset)
            if next_offset > record.offset:
                return True
            work = self._open_work(connection)
            parked = await subscriber.take(work, connection, [record], self._now, failure)
            self._dead_letter_limit.add(parked)
            await work.flush()
            await failpoint("park.before-commit" if parked else "event.before-commit")
        await failpoint("park.after-commit" if parked else "event.after-commit")
        return True

    async def _begin_attempt(
        self, subscriber: Subscriber[W], record: Record, in_progress: ChunkInProgress
    ) -> Attempt:
        """Count one more attempt; the one before it has ended, and stays counted."""
        attempt = await self._attempts.begin(record.partition, record.offset, subscriber.name)
        in_progress.attempts[:] = [
            each
            for each in in_progress.attempts
            if (each.subscriber, each.offset) != (attempt.subscriber, attempt.offset)
        ]
        in_progress.attempts.append(attempt)
        return attempt

    async def _advance(
        self, connection: AsyncConnection, names: Sequence[str], ranges: Sequence[OffsetRange]
    ) -> dict[int, dict[str, int]]:
        """Lock progress, move it to the ends, and return where those were that are not paused.

        :raises AllPaused: in some partition there are none
        """
        before = await offsets.advance(connection, names, self.topic.name, ranges, self._now())
        if not all(before.values()):
            raise AllPaused
        return before

    async def _wait(self, error: Exception, failures: int, in_progress: ChunkInProgress) -> None:
        """Wait before the next try, and show why."""
        telemetry.consumer_retries.labels(self.topic.name).inc()
        self._waiting[in_progress.chunk.partition] = type(error).__name__
        await in_progress.pause(retry_policy.BACKOFF.pause_s(failures))

    async def _undo(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            try:
                async with asyncio.timeout(_UNDO_WITHIN_S):
                    await self._attempts.undo(attempt)
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
