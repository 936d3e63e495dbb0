"""The due timers of a service, which its workers share: claimed in batches, ended one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Interval,
    Text,
    Update,
    bindparam,
    delete,
    false,
    func,
    literal,
    select,
    text,
    true,
    union_all,
    update,
)

from chassis.consuming.dead_letters import Failure
from chassis.correlation import CorrelationContext
from chassis.failpoints import failpoint
from chassis.persistence import claims
from chassis.persistence.database import Connection, Database
from chassis.persistence.tables import Moment, next_timers, timers
from chassis.persistence.transactor import Work
from chassis.timers.postgres_timers import NOW, advance, being_handled
from chassis.timers.timer import DueTimer, Handle

W = TypeVar("W", bound=Work)

_n: Final = next_timers.c
_t: Final = timers.c
_COUNT_AT_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class ClaimedTimer:
    """A timer that one worker may handle until its lease ends; ``tries`` counts this attempt.

    :ivar suspect: an earlier attempt began and did not end, so its worker died or is frozen
    """

    due: DueTimer
    kind: str
    data: Any = field(repr=False)
    correlation: CorrelationContext
    traceparent: str | None
    claim: int
    tries: int
    failures: int
    first_tried_at: datetime
    suspect: bool


@dataclass(frozen=True, slots=True)
class TimersWaiting:
    """How many aggregates have a due timer or a parked one (each counted up to 100,000).

    :ivar overdue_s: how long the longest overdue has been due; parked ones do not count
    """

    due: int
    parked: int
    overdue_s: float


class ClaimLost(Exception):
    """Another worker has claimed the timer since, or it was cancelled; nothing was changed."""


class DueTimers(Generic[W]):
    """Each call is a transaction of its own; PostgreSQL's clock decides what is due."""

    def __init__(
        self,
        database: Database,
        open_work: Callable[[Connection], W],
        *,
        lease_s: float,
    ) -> None:
        self._database = database
        self._open_work = open_work
        self._lease = timedelta(seconds=lease_s)

    async def claim(self, most: int) -> Sequence[ClaimedTimer]:
        """Claim due timers, the longest due first, at most one of each aggregate.

        The attempt is counted by the same statement, so that one that kills its worker counts. At
        most one suspect is claimed beside them: a crash then counts against that one alone.
        """
        async with self._database.connect() as connection:
            rows = await connection.execute(_CLAIM, {"most": most, "lease": self._lease})
            claimed = [
                ClaimedTimer(
                    DueTimer(row.id, row.subject, row.due_at),
                    row.kind,
                    row.data,
                    CorrelationContext(row.correlation_id, row.causation_id),
                    row.traceparent,
                    row.claims,
                    row.tries,
                    row.failures,
                    row.first_tried_at,
                    row.suspect,
                )
                for row in rows
            ]
        if claimed:
            await failpoint("timer.after-claim")
        return sorted(claimed, key=lambda each: each.due.due_at)

    async def handle(self, claimed: ClaimedTimer, handle: Handle[W]) -> None:
        """Handle a timer and delete it, in one transaction.

        Its row is locked last, as a command that schedules or cancels does, which has its
        aggregates before.

        :raises ClaimLost: the claim is lost, and all is rolled back
        :raises Exception: the handler's own; all is rolled back
        """
        async with self._database.begin() as connection:
            work = self._open_work(connection)
            with being_handled(connection, claimed.due.id):
                await handle(work)
                await work.flush()
            gone = await connection.execute(_HANDLED, _claim_of(claimed))
            if not gone.rowcount:
                raise ClaimLost
            await advance(connection, claimed.due.subject)
            await failpoint("timer.before-commit")
        await failpoint("timer.after-commit")

    async def put_back(
        self, claimed: ClaimedTimer, pause_s: float, error: str, *, counts: bool
    ) -> None:
        """Let the timer be claimed again after a pause; its aggregate's later ones wait for it.

        :param error: the code of the error
        :param counts: whether the attempt counts against the timer
        """
        await failpoint("timer.before-put-back")
        await self._end(
            _PUT_BACK,
            claimed,
            pause=timedelta(seconds=pause_s),
            code=error,
            uncounted=0 if counts else 1,
        )

    async def give_back(self, claimed: ClaimedTimer) -> None:
        """Let the timer be claimed at once; no attempt was made."""
        await self._end(_GIVE_BACK, claimed, due_at=claimed.due.due_at, suspect=claimed.suspect)

    async def park(self, claimed: ClaimedTimer, failure: Failure) -> None:
        """Keep the timer until an operator decides; its aggregate's later ones wait for it."""
        await failpoint("timer.before-park")
        await self._end(_PARK, claimed, code=failure.code, message=failure.message)

    async def _end(self, ending: Update, claimed: ClaimedTimer, **values: Any) -> None:
        async with self._database.connect() as connection:
            await connection.execute(ending, _claim_of(claimed) | values)

    async def waiting(self) -> TimersWaiting:
        """Count what waits; as cheap with a million future timers as with none."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_WAITING, {"most": _COUNT_AT_MOST})).one()
        return TimersWaiting(row.due, row.parked, row.overdue_s)


def _claim_of(claimed: ClaimedTimer) -> dict[str, Any]:
    return {"of_id": claimed.due.id, "of_claim": claimed.claim, "of_subject": claimed.due.subject}


def _after(pause: str) -> ColumnElement[datetime]:
    return func.clock_timestamp() + bindparam(pause, type_=Interval)


_due = claims.due(_n.subject, _n.next_at, NOW, ~_n.begun)
_suspect = claims.due(_n.subject, _n.next_at, NOW, _n.begun, most=literal(1), name="suspect")
_both = union_all(
    select(_due.c.subject, false().label("suspect")), select(_suspect.c.subject, true())
).cte("claimed")
_CLAIM: Final = (
    claims.claim(_n.subject, _n.claims, _n.next_at, _both, until=_after("lease"))
    .where(_t.id == _n.timer_id)
    .values(
        begun=True,
        tries=_n.tries + 1,
        first_tried_at=func.coalesce(_n.first_tried_at, func.clock_timestamp()),
        last_tried_at=func.clock_timestamp(),
    )
    .returning(
        *timers.columns, _n.claims, _n.tries, _n.failures, _n.first_tried_at, _both.c.suspect
    )
)

_OURS: Final = (
    _n.subject == bindparam("of_subject", type_=_n.subject.type),
    claims.is_ours(_n.timer_id, _n.claims),
)
_ours = update(next_timers).where(*_OURS)
_held = _ours.values(begun=False).returning(_n.timer_id).cte("held")
_HANDLED: Final = delete(timers).where(_t.id == _held.c.timer_id)
_code = bindparam("code", type_=Text)
_PUT_BACK: Final = _ours.values(
    begun=False,
    next_at=_after("pause"),
    tries=_n.tries - bindparam("uncounted", type_=Integer),
    failures=_n.failures + 1,
    error_code=_code,
)
_GIVE_BACK: Final = _ours.values(
    # Of a suspect an earlier attempt has not ended.
    begun=bindparam("suspect", type_=Boolean),
    next_at=bindparam("due_at", type_=Moment),
    tries=_n.tries - 1,
)
_PARK: Final = _ours.values(
    begun=False,
    next_at=None,
    parked_at=func.clock_timestamp(),
    failures=_n.failures + 1,
    error_code=_code,
    error_message=bindparam("message", type_=Text),
)
_WAITING: Final = text("""
    SELECT
        (SELECT count(*) FROM (
            SELECT FROM next_timers WHERE NOT begun AND next_at <= now LIMIT :most
        ) AS bounded) AS due,
        (SELECT count(*) FROM (
            SELECT FROM next_timers WHERE error_code IS NOT NULL AND parked_at IS NOT NULL
            LIMIT :most
        ) AS bounded) AS parked,
        greatest(0, extract(epoch FROM now - least(
            (SELECT min(next_at) FROM next_timers WHERE NOT begun),
            (SELECT min(due_at) FROM next_timers AS n JOIN timers ON timers.id = n.timer_id
            WHERE n.error_code IS NOT NULL AND n.parked_at IS NULL)
        )))::float AS overdue_s
    FROM (SELECT clock_timestamp() AS now) AS clock
""")
