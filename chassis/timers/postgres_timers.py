"""Timers in PostgreSQL: scheduled and cancelled in the caller's transaction.

The row of ``next_timers`` is the lock of an aggregate's timers: whoever adds, cancels or handles
one changes that row, so that none is left without a first one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, bindparam, case, delete, exists, false, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from chassis.correlation import current_correlation, new_id
from chassis.persistence.bulk import arrays_of, insert_rows, unnested
from chassis.persistence.database import Connection
from chassis.persistence.tables import next_timers, timers
from chassis.telemetry import current_traceparent
from chassis.timers.timer import Timer

_n: Final = next_timers.c
_t: Final = timers.c


#: The timer whose handler runs in this transaction: it is deleted by itself.
_handled: ContextVar[tuple[Connection, UUID] | None] = ContextVar("handled", default=None)


@contextmanager
def being_handled(connection: Connection, timer_id: UUID) -> Iterator[None]:
    """Have ``cancel`` answer no, in this transaction, where it is asked for this timer."""
    token = _handled.set((connection, timer_id))
    try:
        yield
    finally:
        _handled.reset(token)


class PostgresTimers:
    """The timers of one unit of work, which calls ``flush`` after its aggregates'."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._scheduled: dict[UUID, dict[str, Any]] = {}

    def schedule(self, at: datetime, what: Timer, /, *, subject: UUID | None = None) -> UUID:
        correlation, id_ = current_correlation(), new_id()
        self._scheduled[id_] = {
            "id": id_,
            "subject": subject or id_,
            "kind": what.kind,
            "data": what.model_dump(mode="json"),
            "due_at": at,
            "correlation_id": correlation.correlation_id,
            "causation_id": correlation.causation_id,
            "traceparent": current_traceparent(),
        }
        return id_

    async def cancel(self, timer_id: UUID, /) -> bool:
        if self._scheduled.pop(timer_id, None) is not None:
            return True
        if _handled.get() == (self._connection, timer_id):
            return False
        subject = await self._connection.scalar(_SUBJECT, {"of_id": timer_id})
        if subject is None:
            return False
        first = await self._connection.scalar(_LOCK, {"of_subject": subject})
        gone = await self._connection.execute(_DELETE, {"of_id": timer_id})
        if gone.rowcount and first == timer_id:
            await advance(self._connection, subject)
        return bool(gone.rowcount)

    async def flush(self) -> None:
        """Write what was scheduled: one statement for the timers, one for the first of each."""
        scheduled, self._scheduled = list(self._scheduled.values()), {}
        if not scheduled:
            return
        await insert_rows(self._connection, timers, scheduled)
        first: dict[UUID, dict[str, Any]] = {}
        for each in sorted(scheduled, key=lambda row: (row["subject"], row["due_at"], row["id"])):
            row = {"subject": each["subject"], "timer_id": each["id"], "next_at": each["due_at"]}
            first.setdefault(each["subject"], row)
        await self._connection.execute(_FIRST, arrays_of(list(first.values())))


async def advance(connection: Connection, subject: UUID) -> None:
    """Let an aggregate's next timer be its first, once the first is deleted and the row locked."""
    ended = await connection.execute(_END, {"of_subject": subject})
    if not ended.rowcount:
        await connection.execute(_ADVANCE, {"of_subject": subject})


UNTRIED: Final[dict[str, Any]] = {
    "begun": False,
    "tries": 0,
    "failures": 0,
    "first_tried_at": None,
    "last_tried_at": None,
    "error_code": None,
    "error_message": None,
    "parked_at": None,
}
"""The columns of a first timer that nobody has tried."""

_of_subject = bindparam("of_subject", type_=_n.subject.type)
_SUBJECT: Final = select(_t.subject).where(_t.id == bindparam("of_id", type_=_t.id.type))
_LOCK: Final = (
    update(next_timers)
    .where(_n.subject == _of_subject)
    .values(timer_id=_n.timer_id)
    .returning(_n.timer_id)
)
_DELETE: Final = delete(timers).where(_t.id == bindparam("of_id", type_=_t.id.type))

_given = unnested([_n.subject, _n.timer_id, _n.next_at])
_new = insert(next_timers).from_select(
    ["subject", "timer_id", "next_at", "claims", "begun", "tries", "failures"],
    # In one order everywhere, so that two transactions never wait for each other.
    select(*_given.c, literal(0), false(), literal(0), literal(0)).order_by(_given.c.subject),
)
# One that was begun, has failed or is parked stays the first.
_is_earlier = and_(~_n.begun, _n.error_code.is_(None), _new.excluded.next_at < _n.next_at)
_FIRST: Final = _new.on_conflict_do_update(
    index_elements=[_n.subject],
    set_={
        name: case((_is_earlier, _new.excluded[name]), else_=_n[name])
        for name in ("timer_id", "next_at")
    },
)

_END: Final = delete(next_timers).where(
    _n.subject == _of_subject, ~exists().where(_t.subject == _of_subject)
)
_following = (
    select(_t.id, _t.subject, _t.due_at)
    .where(_t.subject == _of_subject)
    .order_by(_t.due_at, _t.id)
    .limit(1)
    .subquery("following")
)
_ADVANCE: Final = (
    update(next_timers)
    .where(_n.subject == _following.c.subject)
    .values(timer_id=_following.c.id, next_at=_following.c.due_at, **UNTRIED)
)
NOW: Final = select(func.clock_timestamp()).scalar_subquery()
"""PostgreSQL's clock, read once by a statement, so that an index can be searched with it."""
