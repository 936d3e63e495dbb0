"""Handles a parked event in a transaction that is rolled back, and shows what it would change."""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python
from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.consuming.dead_letters import CannotRelease, Failure, ParkedRecord, ParkReason
from chassis.consuming.retry_policy import is_transient
from chassis.consuming.subscribers import Subscriber
from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letter_rows import locked
from chassis.persistence import tables
from chassis.persistence.database import sqlstate_of
from chassis.web.problems import TemporarilyUnavailable

#: Rows shown of each table, and events, at most.
MOST_ROWS: Final = 100

# Live events of the subject wait so long.
_TIMEOUT_S: Final = 7.0
_LOOK_THROUGH_A_TABLE: Final = text("SET LOCAL statement_timeout = '1s'")
_QUERY_CANCELED: Final = "57014"
_NOT_SHOWN: Final = ("hash", "secret", "password", "token")
# What is noted of the handling itself; the outbox is shown as events.
_NOT_EFFECTS: Final = frozenset(tables.metadata.tables)

_WRITTEN: Final = text(
    "SELECT relid, relname AS name, format('%I.%I', schemaname, relname) AS quoted,"
    " ARRAY(SELECT attname::text FROM pg_index JOIN pg_attribute"
    " ON attrelid = indrelid AND attnum = ANY (indkey)"
    " WHERE indrelid = relid AND indisprimary) AS keys,"
    " n_tup_ins AS inserted, n_tup_upd AS updated, n_tup_del AS deleted"
    " FROM pg_stat_xact_user_tables ORDER BY relname"
)
_OUR_ID: Final = text("SELECT pg_current_xact_id()::xid::text")
_TOLD: Final = text(
    "SELECT aggregatetype AS topic, payload FROM outbox"
    " WHERE xmin = pg_current_xact_id()::xid ORDER BY position LIMIT :most"
)


class RowChange(BaseModel):
    """A row that would be inserted (nothing before), updated, or deleted (nothing after)."""

    before: dict[str, Any] | None
    after: dict[str, Any] | None


class TableChanges(BaseModel):
    """What would happen to a table: how often, and to which rows."""

    table: str
    inserted: int
    updated: int
    deleted: int
    rows: Annotated[
        list[RowChange] | None,
        Field(description=f"{MOST_ROWS} at most; null: the table is too large to look through."),
    ]


class ToldEvent(BaseModel):
    """An event that would be published."""

    topic: str
    event: dict[str, Any]


class WouldPark(BaseModel):
    """Why the event would stay parked."""

    reason: ParkReason
    error_code: str
    error_message: str


class DryRunBody(BaseModel):
    """What handling a parked event would do now; nothing of it was kept."""

    stays_parked: Annotated[WouldPark | None, Field(description="Null: it can be handled.")]
    changes: list[TableChanges]
    events: Annotated[
        list[ToldEvent] | None,
        Field(description=f"{MOST_ROWS} at most; null: the outbox is too large to look through."),
    ]


@dataclass(frozen=True, slots=True)
class _Written:
    """A table, its primary key, and how often a transaction wrote to it."""

    relid: int
    name: str
    quoted: str
    keys: Sequence[str]
    inserted: int
    updated: int
    deleted: int


class DryRun:
    """Tries parked events of one service on its database, and leaves nothing behind."""

    def __init__(self, operations: ServiceRuntime[Any, Any]) -> None:
        self._operations = operations

    async def __call__(self, id_: UUID) -> DryRunBody:
        """Say what handling an event would do, whatever is before it.

        :raises NoSuchParkedEvent: there is none under this id
        :raises NoSuchSubscriber: the service has its subscriber no longer
        :raises SeenAlready: its subscriber has handled it
        :raises TemporarilyUnavailable: something needed is away
        """
        engine = self._operations.engine
        # Nothing commits here, so it is rolled back at the end of the block.
        async with asyncio.timeout(_TIMEOUT_S), engine.connect() as connection:
            row, subscriber = await locked(connection, id_, self._operations)
            # Statistics of earlier transactions on this connection may not have been sent yet.
            before = await _written(connection)
            failure = await self._handle(connection, row, subscriber)
            if failure is not None:
                return DryRunBody(
                    stays_parked=WouldPark(
                        reason=failure.reason,
                        error_code=failure.code,
                        error_message=failure.message,
                    ),
                    changes=[],
                    events=[],
                )
            written = _since(before, await _written(connection))
            our_id = str(await connection.scalar(_OUR_ID))
            await connection.execute(_LOOK_THROUGH_A_TABLE)
            return DryRunBody(
                stays_parked=None,
                changes=[
                    TableChanges(
                        table=each.name,
                        inserted=each.inserted,
                        updated=each.updated,
                        deleted=each.deleted,
                        rows=await _rows(connection, engine, each, our_id),
                    )
                    for each in written
                    if each.name not in _NOT_EFFECTS
                ],
                events=await _events(connection),
            )

    async def _handle(
        self, connection: AsyncConnection, row: Row[Any], subscriber: Subscriber[Any]
    ) -> Failure | None:
        operations = self._operations
        work = operations.service.open_work(connection)
        try:
            failure = await subscriber.take_parked(
                work,
                connection,
                ParkedRecord.of(row),
                operations.now,
                counted=row.subject is not None,
                in_order=False,
            )
            await work.flush()
        except CannotRelease:
            raise
        except Exception as error:
            if await is_transient(error, 1, operations.engine):
                raise TemporarilyUnavailable(
                    "something needed is away; try again shortly"
                ) from error
            return Failure.of(error, tries=1, first_tried_at=operations.now())
        return failure


async def _written(connection: AsyncConnection) -> dict[int, _Written]:
    found = await connection.execute(_WRITTEN)
    return {row.relid: _Written(*row) for row in found}


def _since(before: Mapping[int, _Written], after: Mapping[int, _Written]) -> list[_Written]:
    """Return what was written after the first look, and not what was then."""
    since = []
    for relid, each in after.items():
        first = before[relid]
        counts = (
            each.inserted - first.inserted,
            each.updated - first.updated,
            each.deleted - first.deleted,
        )
        if any(counts):
            since.append(_Written(relid, each.name, each.quoted, each.keys, *counts))
    return since


async def _rows(
    connection: AsyncConnection, engine: AsyncEngine, table: _Written, our_id: str
) -> list[RowChange] | None:
    """Return the rows that differ, each before and after; None where there are too many to look.

    PostgreSQL marks a row with who wrote it (xmin), and the one that it replaces, or that is
    locked, with who did that (xmax): the first is seen by us, the second by everybody else.
    """
    after = await _look(connection, table, "xmin", our_id)
    before: list[dict[str, Any]] | None = []
    if after is not None and table.updated + table.deleted:
        async with engine.connect() as others:
            await others.execute(_LOOK_THROUGH_A_TABLE)
            before = await _look(others, table, "xmax", our_id)
    if after is None or before is None:
        return None
    locked_only = await _still_there(connection, table, [row["ctid"] for row in before])
    changes: dict[Hashable, RowChange] = {}
    for row in before:
        if row["ctid"] not in locked_only:
            changes[_identity(row, table.keys)] = RowChange(before=_shown(row), after=None)
    for row in after:
        change = changes.setdefault(_identity(row, table.keys), RowChange(before=None, after=None))
        change.after = _shown(row)
    return list(changes.values())[:MOST_ROWS]


async def _look(
    connection: AsyncConnection, table: _Written, column: str, transaction_id: str
) -> list[dict[str, Any]] | None:
    query = (
        f"SELECT ctid::text AS ctid, * FROM {table.quoted}"  # noqa: S608 - the catalogue's own name
        f" WHERE {column} = CAST(CAST(:id AS text) AS xid) LIMIT {MOST_ROWS}"
    )
    try:
        # In a savepoint, for the transaction has to outlive a query that takes too long.
        async with connection.begin_nested():
            found = await connection.execute(text(query), {"id": transaction_id})
            return [dict(row) for row in found.mappings()]
    except DBAPIError as error:
        if sqlstate_of(error) != _QUERY_CANCELED:
            raise
        return None


async def _still_there(
    connection: AsyncConnection, table: _Written, places: Sequence[str]
) -> frozenset[str]:
    """Return at which of these places a row is that we would see, so did not change."""
    query = (
        f"SELECT ctid::text FROM {table.quoted}"  # noqa: S608 - the catalogue's own name
        " WHERE ctid = ANY (CAST(CAST(:places AS text[]) AS tid[]))"
    )
    return frozenset((await connection.scalars(text(query), {"places": list(places)})).all())


def _identity(row: Mapping[str, Any], keys: Sequence[str]) -> Hashable:
    return tuple(row[key] for key in keys) if keys else id(row)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in row.items() if name != "ctid"}


def _value(name: str, value: Any) -> Any:
    if value is not None and any(word in name for word in _NOT_SHOWN):
        return "…"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return to_jsonable_python(value, fallback=str)


async def _events(connection: AsyncConnection) -> list[ToldEvent] | None:
    try:
        async with connection.begin_nested():
            found = await connection.execute(_TOLD, {"most": MOST_ROWS})
    except DBAPIError as error:
        if sqlstate_of(error) != _QUERY_CANCELED:
            raise
        return None
    return [ToldEvent(topic=row.topic, event=orjson.loads(row.payload)) for row in found]
