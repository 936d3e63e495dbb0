"""Deliveries in PostgreSQL: planned in the agent's transaction, claimed from a queue of rows."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    Table,
    Text,
    Update,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    delete,
    exists,
    func,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from chassis.persistence import claims
from chassis.persistence.bulk import insert_rows
from chassis.persistence.database import Connection, Database, Row
from chassis.persistence.tables import Moment
from notification_service import tables
from notification_service.deliveries import ClaimedDelivery, PlannedDelivery, State
from notification_service.stream_log import PostgresStreamEvents

_d: Final[Table] = tables.deliveries
_p: Final[Table] = tables.pauses
_g: Final[Table] = tables.purged_deliveries

_OPEN: Final = _d.c.next_attempt_at.is_not(None)
_LONGEST_ERROR: Final = 200


class PostgresPlannedDeliveries:
    """Deliveries planned in one transaction."""

    def __init__(self) -> None:
        self._planned: list[PlannedDelivery] = []

    def plan(self, delivery: PlannedDelivery) -> None:
        self._planned.append(delivery)

    async def flush(self, connection: Connection) -> None:
        """Write what was planned, and remove of it what was purged earlier: two statements."""
        planned, self._planned = self._planned, []
        if not planned:
            return
        # A delivery is there once, also after a subscriber was restarted.
        await insert_rows(
            connection,
            tables.deliveries,
            [_columns(each) for each in planned],
            unless_there=("event_id", "rule"),
        )
        # In this order: had a purge deleted the row before the INSERT, this statement's snapshot
        # has what it left.
        await connection.execute(_REMOVE_PURGED, {"planned": [each.id for each in planned]})
        connection.wrote(tables.deliveries)


_REMOVE_PURGED: Final = delete(_d).where(
    _d.c.id == any_(bindparam("planned", type_=ARRAY(Uuid))),
    _g.c.event_id == _d.c.event_id,
    _g.c.rule == _d.c.rule,
)


def _columns(planned: PlannedDelivery) -> dict[str, Any]:
    return asdict(planned) | {
        "state": State.PENDING,
        "attempts": 0,
        "next_attempt_at": planned.created_at,
        "maybe_repeated": False,
        "updated_at": planned.created_at,
    }


class PostgresNotificationWork:
    """One transaction of an agent on the service's database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.deliveries = PostgresPlannedDeliveries()
        self.stream_events = PostgresStreamEvents()

    async def flush(self) -> None:
        await self.deliveries.flush(self._connection)
        await self.stream_events.flush(self._connection)


class PostgresDeliveryQueue:
    """The deliveries of one medium. Each call is one statement, and so a transaction by itself."""

    def __init__(self, database: Database, medium: str) -> None:
        self._database = database
        self._medium = medium

    async def claim(
        self, now: datetime, *, lease_until: datetime, reclaim_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        parameters = {
            "of_medium": self._medium,
            "now": now,
            "reclaim_at": reclaim_at,
            "most": limit,
        }
        async with self._database.connect() as connection:
            rows = (await connection.execute(_CLAIM, parameters)).all()
        return [_claimed(row, lease_until) for row in rows]

    async def will_repeat(
        self, claimed: ClaimedDelivery, now: datetime, *, reclaim_at: datetime
    ) -> bool:
        return await self._mark(_WILL_REPEAT, claimed, now=now, reclaim_at=reclaim_at)

    async def sent(self, claimed: ClaimedDelivery, message_id: str, now: datetime) -> bool:
        return await self._mark(_SENT, claimed, now=now, new_message_id=message_id)

    async def failed(self, claimed: ClaimedDelivery, error: str, now: datetime) -> bool:
        return await self._mark(_FAILED, claimed, now=now, error=error[:_LONGEST_ERROR])

    async def put_back(
        self, claimed: ClaimedDelivery, error: str, now: datetime, *, at: datetime, unsure: bool
    ) -> bool:
        marking = _PUT_BACK_UNSURE if unsure else _PUT_BACK
        return await self._mark(
            marking, claimed, now=now, error=error[:_LONGEST_ERROR], again_at=at
        )

    async def _mark(self, marking: Update, claimed: ClaimedDelivery, **values: Any) -> bool:
        claim = {"of_id": claimed.id, "of_claim": claimed.attempt}
        async with self._database.connect() as connection:
            marked = await connection.execute(marking, claim | values)
            return marked.rowcount == 1

    async def pause(self, address: str, now: datetime, *, until: datetime) -> None:
        pause = insert(_p).values(medium=self._medium, address=address, began_at=now, until=until)
        upsert = pause.on_conflict_do_update(
            index_elements=["medium", "address"],
            set_={
                "began_at": now,
                # The longer of two concurrent pauses counts; an old pause never shortens a new one.
                "until": case(
                    (_p.c.began_at <= now, func.greatest(_p.c.until, until)), else_=until
                ),
            },
        )
        async with self._database.connect() as connection:
            await connection.execute(upsert)

    async def restart_waits(self, now: datetime) -> None:
        async with self._database.connect() as connection:
            await connection.execute(_RESTART_WAITS, {"of_medium": self._medium, "now": now})


def _claimed(row: Row, lease_until: datetime) -> ClaimedDelivery:
    return ClaimedDelivery(
        id=row.id,
        rule=row.rule,
        event_id=row.event_id,
        address=row.address,
        text=row.text,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
        created_at=row.created_at,
        attempt=row.attempts,
        lease_until=lease_until,
        unsure_since=row.unsure_since,
    )


_now = bindparam("now", type_=Moment)
_reclaim_at = bindparam("reclaim_at", type_=Moment)
_again_at = bindparam("again_at", type_=Moment)
_medium = bindparam("of_medium", type_=Text)
_error = bindparam("error", type_=Text)

_of_medium: Final = (_OPEN, _d.c.medium == _medium)
_addresses: Final = claims.groups_of(_d.c.address, *_of_medium)
_paused = exists().where(
    _p.c.medium == _medium,
    _p.c.address == _addresses.c.address,
    # A pause that begins in the future was written before the clock was set back.
    _p.c.began_at <= _now,
    _p.c.until > _now,
)
_due = claims.due_in_groups(
    _addresses, _d.c.address, _d.c.id, _d.c.next_attempt_at, _now, *_of_medium, where=~_paused
)
_unfinished = and_(_d.c.state == State.SENDING, _d.c.unsure_since.is_(None))
_CLAIM: Final = (
    claims.claim(_d.c.id, _d.c.attempts, _d.c.next_attempt_at, _due, until=_reclaim_at)
    .values(
        state=State.SENDING,
        unsure_since=case((_unfinished, _d.c.claimed_at), else_=_d.c.unsure_since),
        claimed_at=_now,
        updated_at=_now,
    )
    .returning(_d)
)
# The claim's number in WHERE is the lease: no row is changed if another worker has claimed it.
_OURS: Final = and_(claims.is_ours(_d.c.id, _d.c.attempts), _d.c.state == State.SENDING)
_marked = update(_d).where(_OURS)
_WILL_REPEAT: Final = _marked.values(
    maybe_repeated=True, updated_at=_now, next_attempt_at=_reclaim_at
)
_SENT: Final = _marked.values(
    state=State.SENT,
    message_id=bindparam("new_message_id", type_=Text),
    sent_at=_now,
    updated_at=_now,
    next_attempt_at=None,
    last_error=None,
)
_FAILED: Final = _marked.values(
    state=State.FAILED, last_error=_error, updated_at=_now, next_attempt_at=None
)
_PUT_BACK: Final = _marked.values(
    state=State.PENDING, last_error=_error, updated_at=_now, next_attempt_at=_again_at
)
_PUT_BACK_UNSURE: Final = _PUT_BACK.values(
    unsure_since=func.coalesce(_d.c.unsure_since, _d.c.claimed_at)
)
_wait = _d.c.next_attempt_at - _d.c.updated_at
_RESTART_WAITS: Final = (
    update(_d)
    .where(*_of_medium, _d.c.updated_at > _now)
    .values(next_attempt_at=_now + _wait, updated_at=_now)
)
