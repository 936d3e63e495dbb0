"""The public fakes of the chassis, for tests: a clock, records, repositories, a transactor."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from chassis.consuming.chunk import Chunk
from chassis.consuming.records import Record
from chassis.correlation import (
    CorrelationContext,
    current_correlation,
    new_id,
    use_correlation,
)
from chassis.domain import Aggregate, DomainError, DomainEvent
from chassis.persistence.idempotency_keys import KEEP, ScopedKey, StoredAnswer
from chassis.persistence.outbox import Outbox, Translate
from chassis.persistence.transactor import Transact, Work
from chassis.timers.timer import DueTimer, Timer, TimerHandlers, Timers
from contracts.envelope import EncodedEvent
from contracts.topics import Topic

A = TypeVar("A", bound=Aggregate)
S = TypeVar("S")
T = TypeVar("T")
W = TypeVar("W", bound=Work)


async def eventually(
    holds: Callable[[], Awaitable[object]],
    *,
    within_s: float = 30,
    every_s: float = 0.05,
    despite: tuple[type[Exception], ...] = (),
) -> None:
    """Wait until the condition holds; an exception in ``despite`` means that it does not yet.

    :raises TimeoutError: it did not hold in time
    """
    async with asyncio.timeout(within_s):
        while True:
            try:
                if await holds():
                    return
            except despite:
                pass
            await asyncio.sleep(every_s)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now

    def __call__(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let time pass, or go back."""
        self._now += by


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """A record as a consumer receives it from Kafka."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @classmethod
    def of(cls, event: EncodedEvent, topic: str, offset: int, partition: int = 0) -> "FakeRecord":
        return cls(topic, partition, offset, event.key, event.payload, event.headers)


def chunk_of(records: Sequence[Record], *, begin: int | None = None, epoch: int = 1) -> Chunk:
    """Return the chunk that a fetch of these records returns."""
    first, last = records[0], records[-1]
    return Chunk(
        first.topic,
        first.partition,
        first.offset if begin is None else begin,
        last.offset + 1,
        epoch,
        records,
    )


class FakeChunkSource:
    """A source whose partition is assigned until ``revoked`` is set, and read until it is left."""

    def __init__(self) -> None:
        self.revoked = False
        self.left = False
        self.rewound_to: list[int] = []
        self.done: int | None = None

    def is_current(self, chunk: Chunk) -> bool:
        return not self.revoked and not self.left

    async def leave(self, chunk: Chunk) -> None:
        self.left = True

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        self.rewound_to.append(offset)

    def begin(self, chunk: Chunk) -> None:
        self.done = None

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        self.done = next_offset

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        self.done = next_offset


class InMemoryAggregates(Generic[A]):
    """Aggregates of one kind in a dictionary, saved and loaded as by ``AggregateTable``.

    :param stored: what has been committed
    :param unique: the error to raise if two aggregates have the same value, and the value
    """

    def __init__(
        self,
        stored: dict[UUID, A],
        outbox: Outbox,
        *,
        topic: Topic,
        translate: Translate,
        unique: Mapping[type[DomainError], Callable[[A], object]] | None = None,
    ) -> None:
        self._stored = stored
        self._outbox = outbox
        self._topic = topic
        self._translate = translate
        self._unique = unique or {}
        self._saved: dict[UUID, A] = {}

    def save(self, aggregate: A, /) -> list[DomainEvent]:
        self._saved[aggregate.id] = aggregate
        return self._outbox.append_events_of(
            aggregate, topic=self._topic, translate=self._translate
        )

    async def load(self, ids: Iterable[UUID], /) -> Mapping[UUID, A]:
        known = self._stored | self._saved
        return {id_: known[id_] for id_ in ids if id_ in known}

    async def flush(self) -> None:
        saved, self._saved = self._saved, {}
        for aggregate in saved.values():
            for error, value_of in self._unique.items():
                others = (each for id_, each in self._stored.items() if id_ != aggregate.id)
                if any(value_of(each) == value_of(aggregate) for each in others):
                    raise error
            aggregate.version += 1
            self._stored[aggregate.id] = aggregate


class InMemoryTransactor(Generic[S, W]):
    """Runs one body at a time, on a copy of what is stored; keeps the copy if nothing failed."""

    def __init__(self, stored: S, open_work: Callable[[S], W]) -> None:
        self.stored = stored
        self._open_work = open_work
        self._lock = asyncio.Lock()

    async def __call__(self, body: Callable[[W], Awaitable[T]], /) -> T:
        async with self._lock:
            copy = deepcopy(self.stored)
            work = self._open_work(copy)
            result = await body(work)
            await work.flush()
            self.stored = copy
            return result


@dataclass(frozen=True, slots=True)
class StoredTimer:
    """A timer that waits: what is to be done, when, and about which aggregate."""

    due: DueTimer
    what: Timer
    correlation: CorrelationContext


class InMemoryTimers:
    """The timers of a unit of work, in the dictionary ``stored``."""

    def __init__(self, stored: dict[UUID, StoredTimer]) -> None:
        self._stored = stored

    def schedule(self, at: datetime, what: Timer, /, *, subject: UUID | None = None) -> UUID:
        id_ = new_id()
        due = DueTimer(id_, subject or id_, at)
        self._stored[id_] = StoredTimer(due, what, current_correlation())
        return id_

    async def cancel(self, timer_id: UUID, /) -> bool:
        return self._stored.pop(timer_id, None) is not None


class WorkWithTimers(Work, Protocol):
    @property
    def timers(self) -> Timers: ...


V = TypeVar("V", bound=WorkWithTimers)


async def fire_due(
    transact: Transact[V],
    handlers: TimerHandlers[V],
    stored: Callable[[], Mapping[UUID, StoredTimer]],
    now: datetime,
) -> list[Exception]:
    """Handle what is due as a worker does, also what that schedules; return what failed.

    A timer that fails stays, and holds up the later ones of its aggregate.

    :param stored: gives the timers that are committed
    """
    failed: dict[UUID, Exception] = {}
    while True:
        due = [
            each
            for each in stored().values()
            if each.due.due_at <= now and each.due.subject not in failed
        ]
        if not due:
            return list(failed.values())
        first = min(due, key=lambda each: (each.due.due_at, each.due.id))

        async def body(work: V, timer: StoredTimer = first) -> None:
            await work.timers.cancel(timer.due.id)
            await handlers[type(timer.what)](work, timer.what, timer.due)

        try:
            with use_correlation(first.correlation):
                await transact(body)
        except Exception as error:  # noqa: BLE001 - it is returned
            failed[first.due.subject] = error


class InMemoryIdempotencyKeys:
    """Keys and answers in a dictionary, for one transaction at a time."""

    def __init__(self) -> None:
        self._answers: dict[ScopedKey, tuple[StoredAnswer, datetime]] = {}

    async def claim(self, key: ScopedKey, now: datetime) -> StoredAnswer | None:
        known = self._answers.get(key)
        return known[0] if known and known[1] > now - KEEP else None

    async def remember(self, key: ScopedKey, answer: StoredAnswer, now: datetime) -> None:
        self._answers[key] = (answer, now)
