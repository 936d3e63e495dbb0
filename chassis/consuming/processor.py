"""Processes chunks: effects and offsets in one transaction, so that each happens once.

Kafka and Faust may deliver a chunk twice, late, or not at all. The ``progress`` row in the
service's own database decides what is done with it: what lies before it is dropped, what leaves
a gap is refused and fetched again.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Generic, TypeVar

import structlog
from sqlalchemy import text

from chassis import telemetry
from chassis.consuming import offsets
from chassis.consuming.aggregates import lock_aggregates
from chassis.consuming.attempts import CHUNK, Attempts
from chassis.consuming.chunk import Chunk, ChunkInProgress, ChunkRefused, ChunkSource
from chassis.consuming.dead_letter_limit import DeadLetterLimit, LimitExceeded, Reserve
from chassis.consuming.dead_letters import ParkedSubject, logged_when_parked
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.group_commit import GroupCommit
from chassis.consuming.offsets import AllHeld, AllPaused, OffsetRange
from chassis.consuming.retries import Retries
from chassis.consuming.retry_policy import Failures
from chassis.consuming.single_events import SingleEvents
from chassis.consuming.subscribers import Subscriber
from chassis.failpoints import failpoint
from chassis.persistence.database import Connection, Database, NoConnectionFree, is_away
from chassis.persistence.transactor import Work
from contracts.topics import Topic

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

#: A chunk that so many workers began and did not finish is handled event by event.
SUSPECT_AFTER: Final = 2

_SHORT_LOCK_TIMEOUT: Final = text("SET LOCAL lock_timeout = '500ms'")


class ChunkProcessor(Generic[W]):
    """All subscribers of one service to one topic."""

    def __init__(
        self,
        topic: Topic,
        subscribers: Sequence[Subscriber[W]],
        database: Database,
        open_work: Callable[[Connection], W],
        now: Callable[[], datetime],
        *,
        group_commit: GroupCommit | None = None,
        suspects: asyncio.Lock | None = None,
        dead_letter_limit: DeadLetterLimit | None = None,
        far_behind: FarBehind | None = None,
        chunks_counted_for: str = CHUNK,
    ) -> None:
        """Make a processor.

        :param group_commit: of all processors of the process
        :param suspects: held by the processor that tries an event that a worker may have died of
        :param dead_letter_limit: of this topic
        :param far_behind: which of the subscribers are left to a replay; None: none ever is
        :param chunks_counted_for: by what name attempts at chunks are counted
        """
        self.topic = topic
        self.subscribers = subscribers
        self._database = database
        self._open_work = open_work
        self._now = now
        self._group_commit = group_commit or GroupCommit()
        self._attempts = Attempts(database, topic.name, now)
        self._retries = Retries(topic.name)
        self._dead_letter_limit = dead_letter_limit or DeadLetterLimit(topic.name)
        self._far_behind = far_behind or FarBehind(sys.maxsize)
        self._chunks_counted_for = chunks_counted_for
        self._single_events = SingleEvents(
            topic.name,
            subscribers,
            database,
            open_work,
            now,
            attempts=self._attempts,
            retries=self._retries,
            limit=self._dead_letter_limit,
            suspects=suspects or asyncio.Lock(),
            far_behind=self._far_behind,
        )
        self._names = [each.name for each in subscribers]
        self._counted_in: dict[int, int] = {}
        self._halted: str | None = None
        self._allowances_seen = 0
        #: Which subscribers are paused, as far as is known here; their progress decides.
        self.paused: frozenset[str] = frozenset()

    def trouble(self) -> str | None:
        """Return why events of this topic are not handled, or None when they are."""
        if self._halted is not None:
            return self._halted
        reasons = [f"{name} is paused at {self.topic.name}" for name in sorted(self.paused)]
        if (retries := self._retries.trouble()) is not None:
            reasons.append(retries)
        return "; ".join(reasons) or None

    def is_waiting(self) -> bool:
        """Tell whether there is a reason, shown or not, why progress may stand still."""
        return self._halted is not None or bool(self.paused) or bool(self._retries)

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
            self._retries.end(chunk.partition)
            source.end(chunk, next_offset)
            # An attempt that was given up in good order does not count against the event.
            await asyncio.shield(self._attempts.undo_all(in_progress.attempts))

    async def _process_until_committed(self, in_progress: ChunkInProgress) -> int | None:
        """Return the next offset, or None when the chunk is no longer ours."""
        failures = Failures(self._database)
        while in_progress.is_ours():
            if self._halted is not None:
                await self._wait_for_operator(in_progress)
                continue
            try:
                return await self._process_once(in_progress)
            except ChunkRefused:
                raise
            except AllPaused:
                await in_progress.pause(1)
            except AllHeld:
                await in_progress.leave()
            except LimitExceeded as error:
                await self._halt(error)
            except Exception as error:
                cause = await failures.add(error)
                if cause.is_transient:
                    await self._retries.wait(in_progress, failures)
                elif in_progress.event_by_event:
                    raise  # no event's failure but ours: the process ends, and begins again
                else:
                    log.warning("chunk-failed", topic=self.topic.name, error=type(error).__name__)
                    in_progress.event_by_event = True
        return None

    async def _halt(self, error: LimitExceeded) -> None:
        """Stand still, unless an operator has allowed to park what is there."""
        if await self.read_allowances():
            return
        self._halted = f"{error}: park-all parks them, or the service is mended and started again"
        log.error("consumer-halted", topic=self.topic.name, reason=self._halted)

    async def _wait_for_operator(self, in_progress: ChunkInProgress) -> None:
        await in_progress.pause(1)
        await self.read_allowances()

    async def read_allowances(self) -> bool:
        """Read where operators allowed to park, and continue if that is new; tell whether it is.

        What was known of a former topic is forgotten.
        """
        try:
            async with self._database.connect() as connection:
                seen = await self._dead_letter_limit.read_allowances(connection)
        except Exception as error:
            if not is_away(error) and not isinstance(error, NoConnectionFree):
                raise
            return False
        is_new, self._allowances_seen = seen != self._allowances_seen, seen
        if is_new and self._halted is not None:
            log.info("consumer-resumed", topic=self.topic.name)
            self._halted = None
        return is_new

    async def _process_once(self, in_progress: ChunkInProgress) -> int | None:
        if not in_progress.event_by_event and await self._is_suspect(in_progress):
            in_progress.event_by_event = in_progress.is_suspect = True
        if in_progress.event_by_event:
            return await self._single_events.process(in_progress)
        return await self._process_whole(in_progress)

    async def _process_whole(self, in_progress: ChunkInProgress) -> int | None:
        if not await self._group_commit.commit(in_progress, self._commit):
            return None
        in_progress.attempts.clear()
        return in_progress.chunk.end

    async def _is_suspect(self, in_progress: ChunkInProgress) -> bool:
        """Tell whether workers died in this chunk; the first after each seek is counted."""
        chunk = in_progress.chunk
        if self._counted_in.get(chunk.partition) == chunk.epoch:
            return False
        some_left = await self._attempts.is_any_left(
            chunk.topic_id, chunk.partition, chunk.begin, chunk.end
        )
        if some_left:
            # Counted for a subscriber, the chunk would count against its first event.
            self._counted_in[chunk.partition] = chunk.epoch
            return True
        attempt = await self._attempts.begin(
            chunk.topic_id, chunk.partition, chunk.begin, self._chunks_counted_for
        )
        in_progress.attempts.append(attempt)
        self._counted_in[chunk.partition] = chunk.epoch
        return attempt.count > SUSPECT_AFTER

    async def _commit(self, chunks: Sequence[Chunk], *, within_s: float) -> None:
        """Handle chunks of different partitions in one transaction."""
        with self._dead_letter_limit.reservation() as reserve, logged_when_parked():
            parked = await self._commit_reserving(chunks, reserve, within_s=within_s)
        await failpoint("park.after-commit" if parked else "chunk.after-commit")

    async def _commit_reserving(
        self, chunks: Sequence[Chunk], reserve: Reserve, *, within_s: float
    ) -> Sequence[ParkedSubject]:
        async with asyncio.timeout(within_s), self._database.begin() as connection:
            if len(chunks) > 1:
                # A lock that another session holds on one of them does not delay the others long.
                await connection.execute(_SHORT_LOCK_TIMEOUT)
            ranges = [
                OffsetRange(each.partition, each.begin, each.end, each.topic_id) for each in chunks
            ]
            left = [
                (name, each.partition) for each in chunks for name in self._far_behind.at(each.tp)
            ]
            found = await offsets.advance(
                connection, self._names, self.topic.name, ranges, self._now(), without=left
            )
            before = {
                each.partition: self._far_behind.at_chunk(each, found[each.partition])
                for each in chunks
            }
            parked = await self._take(connection, chunks, before)
            reserve(parked)
            await failpoint("park.before-commit" if parked else "chunk.before-commit")
        return parked

    async def _take(
        self,
        connection: Connection,
        chunks: Sequence[Chunk],
        before: dict[int, dict[str, int]],
    ) -> Sequence[ParkedSubject]:
        """Let each subscriber handle what of the chunks lies at or after its offset."""
        work = self._open_work(connection)
        parked: list[ParkedSubject] = []
        to_take = [
            (subscriber, records)
            for subscriber in self.subscribers
            if (
                records := [
                    record
                    for chunk in chunks
                    for record in chunk.records
                    if record.offset >= before[chunk.partition].get(subscriber.name, chunk.end)
                ]
            )
        ]
        await lock_aggregates(work, to_take)
        for subscriber, records in to_take:
            parked += await subscriber.take(work, connection, records, self._now)
        await work.flush()
        return parked
