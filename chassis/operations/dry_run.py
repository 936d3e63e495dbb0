"""Handles a parked event in a transaction that is rolled back, and returns what it would change."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from chassis.consuming.dead_letters import CannotRelease, Failure, ParkedRecord, ParkReason
from chassis.consuming.retry_policy import is_transient
from chassis.consuming.subscribers import Subscriber
from chassis.operations.acts import Command, Query, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import OneParkedEvent, locked
from chassis.operations.terminal import Shown
from chassis.persistence import tables
from chassis.persistence.database import Connection, Row
from chassis.persistence.written_rows import WrittenRows, WrittenTable
from chassis.web.problems import TemporarilyUnavailable

#: Rows shown of each table, and events, at most.
MOST_ROWS: Final = 100

# Live events of the subject wait for this long at most.
_TIMEOUT_S: Final = 7.0
_NOT_SHOWN: Final = ("hash", "secret", "password", "token")
# What every handling writes, whatever the event; the outbox is shown as events.
_NOT_EFFECTS: Final = frozenset(tables.metadata.tables)


class TableChanges(BaseModel):
    """How many rows of a table would be written, and which."""

    table: str
    inserted: int
    updated: int
    deleted: int
    rows: Annotated[
        list[dict[str, Any]] | None,
        Field(
            description=f"Those inserted and updated, as they would be written; {MOST_ROWS} at"
            " most. Null: a statement did not contain its rows."
        ),
    ]


class NewEvent(BaseModel):
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
    events: Annotated[list[NewEvent], Field(description=f"{MOST_ROWS} at most.")]


async def dry_run(runtime: AnyRuntime, event: OneParkedEvent) -> DryRunBody:
    """Return what handling an event would do, whatever is before it.

    :raises NoSuchParkedEvent: there is none under this id
    :raises NoSuchSubscriber: the service has its subscriber no longer
    :raises SeenAlready: its subscriber has handled it
    :raises TemporarilyUnavailable: something needed is unreachable
    """
    async with asyncio.timeout(_TIMEOUT_S), runtime.database.begin_rolled_back() as connection:
        row, subscriber = await locked(connection, event.parked_id, runtime)
        written = WrittenRows.on(connection)
        failure = await _handle(runtime, connection, row, subscriber)
        if failure is not None:
            stays_parked = WouldPark(
                reason=failure.reason, error_code=failure.code, error_message=failure.message
            )
            return DryRunBody(stays_parked=stays_parked, changes=[], events=[])
        return DryRunBody(
            stays_parked=None,
            changes=[_changes(each) for each in written.tables() if each.name not in _NOT_EFFECTS],
            events=_events(written.rows_of(tables.outbox)),
        )


async def _handle(
    runtime: AnyRuntime, connection: Connection, row: Row, subscriber: Subscriber[Any]
) -> Failure | None:
    work = runtime.service.open_work(connection)
    try:
        outcome = await subscriber.take_parked(
            work,
            connection,
            ParkedRecord.of(row),
            runtime.now,
            counted=row.subject is not None,
            in_order=False,
        )
        await work.flush()
    except CannotRelease:
        raise
    except Exception as error:
        if await is_transient(error, 1, runtime.database):
            raise TemporarilyUnavailable(
                "something needed is unreachable; try again shortly"
            ) from error
        return Failure.of(error, tries=1, first_tried_at=runtime.now())
    return outcome if isinstance(outcome, Failure) else None


def _changes(written: WrittenTable) -> TableChanges:
    rows = None if written.rows is None else [_shown(row) for row in written.rows[:MOST_ROWS]]
    return TableChanges(
        table=written.name,
        inserted=written.inserted,
        updated=written.updated,
        deleted=written.deleted,
        rows=rows,
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if value is not None and any(word in name for word in _NOT_SHOWN):
        return "…"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return to_jsonable_python(value, fallback=str)


def _events(rows: Sequence[Mapping[str, Any]]) -> list[NewEvent]:
    return [
        NewEvent(topic=row["aggregatetype"], event=orjson.loads(row["payload"]))
        for row in rows[:MOST_ROWS]
    ]


def _lines(result: DryRunBody) -> list[str]:
    if result.stays_parked is not None:
        return [
            f"stays parked: {result.stays_parked.error_code}",
            result.stays_parked.error_message,
        ]
    lines = ["can be handled"]
    for each in result.changes:
        lines.append(
            f"{each.table}: {each.inserted} inserted, {each.updated} updated,"
            f" {each.deleted} deleted"
        )
        lines += [f"  + {orjson.dumps(row).decode()}" for row in each.rows or []]
    lines += [
        f"publishes {each.topic}: {orjson.dumps(each.event).decode()}" for each in result.events
    ]
    return lines


DRY_RUN: Final = Query(
    summary="What handling it would change",
    description="Handle it in a transaction that is rolled back.",
    input=OneParkedEvent,
    output=DryRunBody,
    run=dry_run,
    route=Route("POST", "/parked/{parked_id}/dry-run", "post_parked_dry_run"),
    command=Command(name="dry-run", show=lambda result: Shown("\n".join(_lines(result)))),
)
