"""What every kind of timers promises: in PostgreSQL, and in the fake."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Protocol, TypeVar
from uuid import UUID, uuid4

import pytest

from chassis.correlation import CorrelationContext, current_correlation, use_correlation
from chassis.domain import DomainError, Kind
from chassis.testing import WorkWithTimers
from chassis.timers.timer import DueTimer, Timer, TimerHandlers

T = TypeVar("T")

PAST = datetime.now(UTC) - timedelta(hours=5)
FUTURE = datetime.now(UTC) + timedelta(days=5)


class Note(Timer):
    """Something to write down."""

    kind: ClassVar[str] = "test.note"

    text: str


class Refused(DomainError):
    kind, code = Kind.CONFLICT, "refused"


class Notes:
    """A handler that notes what it handled; what has a text in ``refused`` it refuses."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, DueTimer, CorrelationContext]] = []
        self.refused: set[str] = set()
        self.then: Callable[[WorkWithTimers], Awaitable[None]] | None = None

    @property
    def texts(self) -> list[str]:
        return [text for text, _, _ in self.handled]

    async def __call__(self, work: WorkWithTimers, what: Note, due: DueTimer) -> None:
        if what.text in self.refused:
            raise Refused(what.text)
        if self.then is not None:
            await self.then(work)
        self.handled.append((what.text, due, current_correlation()))

    @property
    def handlers(self) -> TimerHandlers[WorkWithTimers]:
        return {Note: self}


class Bench(Protocol):
    async def transact(self, body: Callable[[WorkWithTimers], Awaitable[T]], /) -> T: ...

    async def fire(self, notes: Notes) -> None:
        """Handle what is due, until nothing is that could be handled."""


async def schedule(
    bench: Bench, text: str, at: datetime = PAST, *, subject: UUID | None = None
) -> UUID:
    async def body(work: WorkWithTimers) -> UUID:
        return work.timers.schedule(at, Note(text=text), subject=subject)

    return await bench.transact(body)


async def cancel(bench: Bench, timer_id: UUID) -> bool:
    async def body(work: WorkWithTimers) -> bool:
        return await work.timers.cancel(timer_id)

    return await bench.transact(body)


class TimersSuite:
    @pytest.fixture
    def notes(self) -> Notes:
        return Notes()

    async def test_what_is_due_is_handled_once_with_the_time_it_was_due(
        self, bench: Bench, notes: Notes
    ) -> None:
        subject = uuid4()
        id_ = await schedule(bench, "late by hours", subject=subject)

        await bench.fire(notes)
        await bench.fire(notes)

        assert [(text, due) for text, due, _ in notes.handled] == [
            ("late by hours", DueTimer(id_, subject, PAST))
        ]

    async def test_what_is_not_due_waits(self, bench: Bench, notes: Notes) -> None:
        await schedule(bench, "later", FUTURE)

        await bench.fire(notes)

        assert notes.handled == []

    async def test_what_is_rolled_back_was_not_scheduled(self, bench: Bench, notes: Notes) -> None:
        async def body(work: WorkWithTimers) -> None:
            work.timers.schedule(PAST, Note(text="never"))
            raise Refused("rolled back")

        with pytest.raises(Refused):
            await bench.transact(body)
        await bench.fire(notes)

        assert notes.handled == []

    async def test_what_is_cancelled_is_never_handled(self, bench: Bench, notes: Notes) -> None:
        id_ = await schedule(bench, "no more")

        assert await cancel(bench, id_)
        assert not await cancel(bench, id_)

        await bench.fire(notes)
        assert notes.handled == []

    async def test_what_was_handled_can_not_be_cancelled(self, bench: Bench, notes: Notes) -> None:
        id_ = await schedule(bench, "done")
        await bench.fire(notes)

        assert not await cancel(bench, id_)

    async def test_what_was_just_scheduled_can_be_cancelled(
        self, bench: Bench, notes: Notes
    ) -> None:
        async def body(work: WorkWithTimers) -> bool:
            return await work.timers.cancel(work.timers.schedule(PAST, Note(text="never")))

        assert await bench.transact(body)

        await bench.fire(notes)
        assert notes.handled == []

    async def test_a_cancel_that_is_rolled_back_cancels_nothing(
        self, bench: Bench, notes: Notes
    ) -> None:
        id_ = await schedule(bench, "still")

        async def body(work: WorkWithTimers) -> None:
            await work.timers.cancel(id_)
            raise Refused("rolled back")

        with pytest.raises(Refused):
            await bench.transact(body)

        await bench.fire(notes)
        assert notes.texts == ["still"]

    async def test_those_of_one_aggregate_are_handled_in_the_order_of_their_times(
        self, bench: Bench, notes: Notes
    ) -> None:
        subject = uuid4()
        for hours, text in ((2, "second"), (3, "third"), (1, "first")):
            await schedule(bench, text, PAST + timedelta(hours=hours), subject=subject)

        await bench.fire(notes)

        assert notes.texts == ["first", "second", "third"]

    async def test_a_cancelled_first_one_lets_the_next_be_handled(
        self, bench: Bench, notes: Notes
    ) -> None:
        subject = uuid4()
        first = await schedule(bench, "first", FUTURE, subject=subject)
        await schedule(bench, "later", FUTURE + timedelta(days=1), subject=subject)
        await schedule(bench, "due", PAST, subject=subject)
        await cancel(bench, first)

        await bench.fire(notes)

        assert notes.texts == ["due"]

    async def test_one_that_fails_holds_up_the_later_ones_of_its_aggregate_only(
        self, bench: Bench, notes: Notes
    ) -> None:
        subject, other = uuid4(), uuid4()
        failing = await schedule(bench, "failing", subject=subject)
        await schedule(bench, "behind", PAST + timedelta(hours=1), subject=subject)
        await schedule(bench, "other", PAST + timedelta(hours=2), subject=other)
        notes.refused = {"failing"}

        await bench.fire(notes)
        assert notes.texts == ["other"]

        assert await cancel(bench, failing)
        await bench.fire(notes)
        assert notes.texts == ["other", "behind"]

    async def test_one_may_schedule_the_next_of_its_aggregate(
        self, bench: Bench, notes: Notes
    ) -> None:
        subject = uuid4()
        await schedule(bench, "first", subject=subject)

        async def then(work: WorkWithTimers) -> None:
            if not notes.handled:
                at = PAST - timedelta(hours=1)
                work.timers.schedule(at, Note(text="earlier"), subject=subject)

        notes.then = then
        await bench.fire(notes)

        assert notes.texts == ["first", "earlier"]

    async def test_one_that_is_handled_can_not_be_cancelled_by_its_handler(
        self, bench: Bench, notes: Notes
    ) -> None:
        id_ = await schedule(bench, "itself")
        answers: list[bool] = []

        async def then(work: WorkWithTimers) -> None:
            answers.append(await work.timers.cancel(id_))

        notes.then = then
        await bench.fire(notes)

        assert (notes.texts, answers) == (["itself"], [False])

    async def test_it_has_the_correlation_and_the_cause_that_scheduled_it(
        self, bench: Bench, notes: Notes
    ) -> None:
        context = CorrelationContext("a-request", "an-event")
        with use_correlation(context):
            await schedule(bench, "traced")

        await bench.fire(notes)

        assert [correlation for _, _, correlation in notes.handled] == [context]
