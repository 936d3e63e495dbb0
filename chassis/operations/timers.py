"""The timers that could not be handled: an operator reads, releases and discards them."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ARRAY, Select, Uuid, bindparam, delete, func, select, update

from chassis.domain import DomainError, Kind
from chassis.operations import terminal
from chassis.operations.acts import Act, Command, Query, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.operator_log import Operator
from chassis.operations.terminal import Shown
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import next_timers, timers
from chassis.timers.postgres_timers import UNTRIED, advance
from chassis.web.paging import PageLimit, Search, matching, page_of
from contracts.events import Text
from contracts.operations import TimerDiscardedV1, TimerReleasedV1

_n: Final = next_timers.c
_t: Final = timers.c
_MOST_RELEASED: Final = 1_000


class NoSuchParkedTimer(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-parked-timer"

    def __init__(self, id_: UUID) -> None:
        super().__init__(f"no timer is parked under the id {id_}")


class TimerSearch(Search):
    """Which parked timers to find, and which page of them."""

    kind: Text | None = None
    subject: UUID | None = None
    error_code: Text | None = None
    after: Annotated[UUID | None, Field(description="`next` of the page before.")] = None
    limit: PageLimit = 50


class OneTimer(BaseModel):
    """A parked timer, by its id."""

    timer_id: UUID


class TimerBody(BaseModel):
    """A timer that could not be handled, and why; its aggregate's later ones wait for it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    subject: Annotated[UUID, Field(description="Its aggregate; of none, the timer's id.")]
    kind: str
    due_at: datetime
    error_code: str
    error_message: str
    tries: int
    first_tried_at: datetime
    last_tried_at: datetime
    parked_at: datetime


class WholeTimerBody(TimerBody):
    """A parked timer with what is to be done."""

    data: dict[str, Any]
    correlation_id: str
    causation_id: Annotated[str | None, Field(description="The event that led to it.")]


class TimerPage(BaseModel):
    """Parked timers, in the order in which they were scheduled."""

    timers: list[TimerBody]
    next: Annotated[UUID | None, Field(description="`after` of the next page; null on the last.")]


class TimersRelease(BaseModel):
    """The timers of one kind that one error stopped."""

    kind: Text
    error_code: Text


class ReleasedTimersBody(BaseModel):
    """How many timers were released."""

    released: int
    more_are_left: Annotated[bool, Field(description="Then release again.")]


async def page(runtime: AnyRuntime, search: TimerSearch) -> TimerPage:
    """Return the parked timers that match, without their data."""
    query = _PARKED.where(*matching(search, _FILTERS)).order_by(_n.timer_id)
    if search.after is not None:
        query = query.where(_n.timer_id > search.after)
    async with runtime.database.connect() as connection:
        rows = (await connection.execute(query.limit(search.limit + 1))).all()
    found = page_of(rows, search.limit, key=lambda row: row.id)
    return TimerPage(timers=[TimerBody.model_validate(row) for row in found.items], next=found.next)


async def show(runtime: AnyRuntime, one: OneTimer) -> WholeTimerBody:
    """Return a timer with its data.

    :raises NoSuchParkedTimer: none is parked under this id
    """
    async with runtime.database.connect() as connection:
        row = (await connection.execute(_of(one))).one_or_none()
    if row is None:
        raise NoSuchParkedTimer(one.timer_id)
    return WholeTimerBody.model_validate(row, from_attributes=True)


async def release(runtime: AnyRuntime, one: OneTimer, operator: Operator) -> None:
    """Have a worker handle a timer again, with all its tries.

    :raises NoSuchParkedTimer: none is parked under this id
    """
    async with runtime.act() as connection:
        row = await _locked(connection, one)
        await connection.execute(_RELEASE, {"ids": [row.id]})
        act = TimerReleasedV1(**_details_of(row, operator))
        await runtime.operator_log.record(connection, {row.id: act})


async def release_all(
    runtime: AnyRuntime, wanted: TimersRelease, operator: Operator
) -> ReleasedTimersBody:
    """Have workers handle again all that one error stopped, up to 1,000 timers."""
    query = (
        _PARKED.where(_t.kind == wanted.kind, _n.error_code == wanted.error_code)
        .order_by(_n.timer_id)
        .limit(_MOST_RELEASED + 1)
    )
    async with runtime.act() as connection:
        locked = await connection.execute(query.with_for_update(of=next_timers, skip_locked=True))
        found = page_of(locked.all(), _MOST_RELEASED, key=lambda row: row.id)
        acts = {row.id: TimerReleasedV1(**_details_of(row, operator)) for row in found.items}
        await connection.execute(_RELEASE, {"ids": list(acts)})
        await runtime.operator_log.record(connection, acts)
    return ReleasedTimersBody(released=len(acts), more_are_left=found.next is not None)


async def discard(runtime: AnyRuntime, one: OneTimer, operator: Operator) -> None:
    """Delete a timer; it is never handled, and its aggregate's next one is.

    :raises NoSuchParkedTimer: none is parked under this id
    """
    async with runtime.act() as connection:
        row = await _locked(connection, one)
        await connection.execute(delete(timers).where(_t.id == row.id))
        await advance(connection, row.subject)
        act = TimerDiscardedV1(**_details_of(row, operator))
        await runtime.operator_log.record(connection, {row.id: act})


async def _locked(connection: Connection, one: OneTimer) -> Row:
    found = await connection.execute(_of(one).with_for_update(of=next_timers))
    row = found.one_or_none()
    if row is None:
        raise NoSuchParkedTimer(one.timer_id)
    return row


def _details_of(row: Row, operator: Operator) -> dict[str, Any]:
    """Return the fields that every act on a timer has."""
    return {
        "by": operator.by,
        "why": operator.why,
        "timer_id": row.id,
        "timer_kind": row.kind,
        "timer_subject": row.subject,
    }


_PARKED: Final[Select[*tuple[Any, ...]]] = (
    select(
        *timers.columns,
        _n.error_code,
        _n.error_message,
        _n.tries,
        _n.first_tried_at,
        _n.last_tried_at,
        _n.parked_at,
    )
    .join_from(next_timers, timers, _t.id == _n.timer_id)
    # The index has those with an error.
    .where(_n.error_code.is_not(None), _n.parked_at.is_not(None))
)
_FILTERS: Final = {"kind": _t.kind, "subject": _t.subject, "error_code": _n.error_code}


_RELEASE: Final = (
    update(next_timers)
    .where(
        _n.timer_id == func.any(bindparam("ids", type_=ARRAY(Uuid))),
        _n.error_code.is_not(None),
        _t.id == _n.timer_id,
    )
    .values(next_at=_t.due_at, **UNTRIED)
)


def _of(one: OneTimer) -> Select[*tuple[Any, ...]]:
    return _PARKED.where(_n.timer_id == one.timer_id)


_PAGE_COLUMNS: Final = (
    *("id", "subject", "kind", "due_at", "error_code", "tries", "last_tried_at", "error_message"),
)


def _page_shown(found: TimerPage) -> Shown:
    return terminal.page(found.timers, _PAGE_COLUMNS, found.next)


OPERATIONS: Final = (
    Query(
        summary="Which timers could not be handled",
        input=TimerSearch,
        output=TimerPage,
        run=page,
        route=Route("GET", "/timers", "get_timers"),
        command=Command(name="list", show=_page_shown),
    ),
    Query(
        summary="A parked timer, whole",
        input=OneTimer,
        output=WholeTimerBody,
        run=show,
        route=Route("GET", "/timers/{timer_id}", "get_timer"),
        command=Command(name="show", show=terminal.fields),
    ),
    Act(
        summary="Have a worker handle it again",
        input=OneTimer,
        run=release,
        route=Route("POST", "/timers/{timer_id}/release", "post_timer_release"),
        command=Command(name="release", show=terminal.done("released: a worker handles it")),
    ),
    Act(
        summary="Have workers handle again all that one error stopped",
        input=TimersRelease,
        output=ReleasedTimersBody,
        run=release_all,
        route=Route("POST", "/timers/release-all", "post_timers_release_all"),
        command=Command(name="release-all", show=terminal.fields),
    ),
    Act(
        summary="Never handle it",
        description="Delete it. The next timer of its aggregate is handled when it is due.",
        input=OneTimer,
        run=discard,
        route=Route("POST", "/timers/{timer_id}/discard", "post_timer_discard"),
        command=Command(name="discard", show=terminal.done("discarded")),
    ),
)
