"""The log of streams in PostgreSQL: numbered without a gap, and read behind any position."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    Table,
    Uuid,
    and_,
    bindparam,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from chassis.persistence.bulk import arrays_of, insert_of, insert_rows, unnested
from chassis.persistence.database import Connection, Database
from notification_service import tables
from notification_service.stream_events import Position, StreamEvent

_s: Final = tables.streams.c
_e: Final = tables.stream_events.c

MOST_AT_ONCE: Final = 50
"""How many events of one stream are read at once."""


class PostgresStreamEvents:
    """The events of one transaction, which numbers them."""

    def __init__(self) -> None:
        self._events: list[StreamEvent] = []

    def append(self, event: StreamEvent) -> None:
        self._events.append(event)

    async def flush(self, connection: Connection) -> None:
        """Number and write what was appended, in its order: two statements.

        A user's row is locked until the commit, so the next number is given only when this one
        can be read: a reader that is behind a number has seen all before it.
        """
        events, self._events = self._events, []
        if not events:
            return
        by_user: dict[UUID, list[StreamEvent]] = defaultdict(list)
        for event in events:
            by_user[event.user_id].append(event)
        epoch = _epoch_of(events[0].stored_at)
        # In order of ids, so that two chunks with the same users wait for one another.
        users = [
            {"user_id": user_id, "epoch": epoch, "last_number": len(by_user[user_id])}
            for user_id in sorted(by_user)
        ]
        rows: list[dict[str, Any]] = []
        for last in await connection.execute(_NUMBER, arrays_of(users)):
            of_user = by_user[last.user_id]
            first = last.last_number - len(of_user) + 1
            rows += [
                asdict(event) | {"epoch": last.epoch, "number": number}
                for number, event in enumerate(of_user, first)
            ]
        await insert_rows(connection, tables.stream_events, rows)
        connection.wrote(tables.stream_events)


def _epoch_of(now: datetime) -> int:
    return int(now.timestamp() * 1_000)


_numbering = insert_of(tables.streams, ("user_id", "epoch", "last_number"))
_NUMBER: Final = _numbering.on_conflict_do_update(
    index_elements=["user_id"],
    set_={"last_number": _s.last_number + _numbering.excluded.last_number},
).returning(_s.user_id, _s.epoch, _s.last_number)


@dataclass(frozen=True, slots=True)
class Read:
    """What follows a position.

    :ivar events: each with its id, in order; with none of them, ``last`` can't be reached from the
        position: its epoch is over, or the events behind it were deleted
    """

    last: Position
    events: Sequence[tuple[Position, str]]


class StreamLog:
    """Reads the log. Each call takes a connection for one or two statements."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def last_of(self, user_id: UUID) -> Position:
        """Return the position behind all of a user's events, which begin with it if need be."""
        values = {"of_user": user_id, "new_epoch": _epoch_of(self._now())}
        async with self._database.connect() as connection:
            row = (await connection.execute(_LAST, values)).first()
            if row is None:
                await connection.execute(_BEGIN, values)
                row = (await connection.execute(_LAST, values)).one()
        return Position(row.epoch, row.last_number)

    async def after(self, positions: Sequence[tuple[UUID, Position]]) -> Mapping[int, Read]:
        """Return what follows each of these users' positions: one statement for all of them.

        :returns: by the index of the position; without those that nothing follows
        """
        given = [
            {"place": place, "user_id": user_id, "epoch": at.epoch, "number": at.number}
            for place, (user_id, at) in enumerate(positions)
        ]
        if not given:
            return {}
        async with self._database.connect() as connection:
            rows = (await connection.execute(_AFTER, arrays_of(given))).all()
        found: dict[int, Read] = {}
        events: dict[int, list[tuple[Position, str]]] = defaultdict(list)
        for row in rows:
            found[row.place] = Read(Position(row.epoch, row.last_number), events[row.place])
            _, at = positions[row.place]
            # Behind a gap nothing is sent: what was there is deleted.
            if row.number == at.number + len(events[row.place]) + 1:
                events[row.place].append((Position(row.epoch, row.number), row.data))
        return found


_of_user = bindparam("of_user", type_=Uuid)
_LAST: Final = select(_s.epoch, _s.last_number).where(_s.user_id == _of_user)
_BEGIN: Final = (
    insert(tables.streams)
    .values(user_id=_of_user, epoch=bindparam("new_epoch", type_=BigInteger), last_number=0)
    .on_conflict_do_nothing()
)
_position: Final = Table(
    "given",
    MetaData(),
    Column("place", Integer),
    Column("user_id", Uuid),
    Column("epoch", BigInteger),
    Column("number", BigInteger),
)
_given = unnested(_position.c)
_following = (
    select(_e.number, _e.data)
    .where(
        _e.user_id == _given.c.user_id,
        _e.epoch == _given.c.epoch,
        _e.number > _given.c.number,
        _s.epoch == _given.c.epoch,
    )
    .order_by(_e.number)
    .limit(MOST_AT_ONCE)
    .correlate(_given, tables.streams)
    .lateral("following")
)
_AFTER: Final = (
    select(_given.c.place, _s.epoch, _s.last_number, _following.c.number, _following.c.data)
    .select_from(
        _given.join(
            tables.streams,
            and_(
                _s.user_id == _given.c.user_id,
                (_s.epoch != _given.c.epoch) | (_s.last_number != _given.c.number),
            ),
        ).outerjoin(_following, true())
    )
    .order_by(_given.c.place, _following.c.number)
)
