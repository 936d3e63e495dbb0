"""Group commit: small chunks that wait for one another share a transaction.

A transaction costs nearly the same for one event as for a hundred, so small chunks of one topic are
committed in one batch. A chunk never waits for others to come: while no batch is under way it is
one at once, and those that come meanwhile are the next. Large chunks gain nothing from sharing; two
at a time keep this process and the database at work, and more would only take memory.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from chassis.consuming.chunk import Chunk, ChunkInProgress

log = structlog.get_logger(__name__)

_LARGE_AT_ONCE: Final = 2
# Others wait for a batch: after that long each of its chunks is committed by itself.
_BATCH_TIMEOUT_S: Final = 2.0
_LARGE_TIMEOUT_S: Final = 10.0
_CHUNK_TIMEOUT_S: Final = 20.0
_SLOW_TOPIC_SKIPS_BATCHES_FOR_S: Final = 60.0


class CommitChunks(Protocol):
    """Handles chunks of different partitions of one topic in one transaction, or none of them."""

    async def __call__(self, chunks: Sequence[Chunk], *, within_s: float) -> None: ...


class _BatchFailed(Exception):
    """A batch failed or took long, and each of its chunks is to be committed by itself."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A small chunk that waits to be committed; ``outcome`` is false where it is no longer ours."""

    in_progress: ChunkInProgress
    commit: CommitChunks
    outcome: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def events(self) -> int:
        return len(self.in_progress.chunk.records)


class GroupCommit:
    """Commits the chunks of one process.

    :param most_events: in one batch
    """

    def __init__(self, most_events: int = 500) -> None:
        self._most_events = most_events
        self._waiting: deque[_Waiting] = deque()
        self._batch: Sequence[_Waiting] = ()
        self._committing: asyncio.Task[None] | None = None
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._slow_until: dict[CommitChunks, float] = {}

    async def commit(self, in_progress: ChunkInProgress, commit: CommitChunks) -> bool:
        """Commit a chunk, with others of its topic that wait; false: it is no longer ours.

        A chunk that fails beside others, or takes long, is committed by itself, now and when it
        is tried again. Where that took long too, the topic's chunks are committed by themselves
        at once for a minute. One that is cancelled leaves the others of its batch alone; the last
        one to be cancelled ends the batch, and waits until it is rolled back.

        :param commit: of all chunks of one topic the same
        :raises Exception: whatever ``commit`` raised of this chunk alone
        """
        is_large = 2 * len(in_progress.chunk.records) > self._most_events
        if not in_progress.by_itself and not self._is_slow(commit):
            try:
                if is_large:
                    return await self._commit_large(in_progress, commit)
                return await self._commit_in_batch(_Waiting(in_progress, commit))
            except _BatchFailed:
                in_progress.by_itself = True
        began = time.monotonic()
        committed = await self._commit_alone(in_progress, commit, within_s=_CHUNK_TIMEOUT_S)
        if time.monotonic() - began > (_LARGE_TIMEOUT_S if is_large else _BATCH_TIMEOUT_S):
            self._slow_until[commit] = time.monotonic() + _SLOW_TOPIC_SKIPS_BATCHES_FOR_S
        return committed

    async def _commit_alone(
        self, in_progress: ChunkInProgress, commit: CommitChunks, *, within_s: float
    ) -> bool:
        if not in_progress.is_ours():
            return False
        await commit([in_progress.chunk], within_s=within_s)
        return True

    async def _commit_large(self, in_progress: ChunkInProgress, commit: CommitChunks) -> bool:
        async with self._large:
            try:
                return await self._commit_alone(in_progress, commit, within_s=_LARGE_TIMEOUT_S)
            except TimeoutError as error:
                _log_left_alone(in_progress.chunk, error)
                raise _BatchFailed from error

    async def _commit_in_batch(self, waiting: _Waiting) -> bool:
        self._waiting.append(waiting)
        self._start_next()
        try:
            return await waiting.outcome
        except asyncio.CancelledError:
            await self._leave(waiting)
            raise

    async def _leave(self, waiting: _Waiting) -> None:
        """End what was begun for one that is cancelled, unless others still wait for it."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            return
        committing = self._committing
        if (
            committing is not None
            and waiting in self._batch
            and all(each.outcome.cancelled() for each in self._batch)
        ):
            committing.cancel()
            await asyncio.wait([committing])

    def _start_next(self) -> None:
        """Begin the next batch, unless one is under way: the first that waits, and its like."""
        if self._committing is not None or not self._waiting:
            return
        first = self._waiting.popleft()
        batch, room = [first], self._most_events - first.events
        for each in list(self._waiting):
            if each.commit == first.commit and each.events <= room:
                room -= each.events
                self._waiting.remove(each)
                batch.append(each)
        self._batch = batch
        self._committing = asyncio.create_task(self._commit_batch(batch))

    async def _commit_batch(self, batch: Sequence[_Waiting]) -> None:
        ours = [each for each in batch if each.in_progress.is_ours()]
        error: Exception | None = None
        try:
            if ours:
                chunks = [each.in_progress.chunk for each in ours]
                await ours[0].commit(chunks, within_s=_BATCH_TIMEOUT_S)
        except Exception as raised:  # noqa: BLE001 - those that wait for it raise it
            error = raised
            if len(batch) > 1 or isinstance(error, TimeoutError):
                _log_left_alone(batch[0].in_progress.chunk, error)
                error = _BatchFailed()
        finally:
            self._committing = None
            self._start_next()
        for each in batch:
            if each.outcome.done():
                continue  # it was cancelled
            if each in ours and error is not None:
                each.outcome.set_exception(error)
            else:
                each.outcome.set_result(each in ours)

    def _is_slow(self, commit: CommitChunks) -> bool:
        return self._slow_until.get(commit, 0.0) > time.monotonic()


def _log_left_alone(chunk: Chunk, error: Exception) -> None:
    log.info("left-alone", topic=chunk.topic, error=type(error).__name__)
