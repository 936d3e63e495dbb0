"""The outbox rows that Kafka refused: an operator reads, edits, releases and discards them.

What replaces a row has its position in the outbox, and the aggregate's later rows are published
after it, in their order.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, func, select, update

from chassis.domain import DomainError, Kind
from chassis.operations import terminal
from chassis.operations.acts import Act, Command, Query, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.operator_log import Operator
from chassis.operations.payloads import Payload, encoded_for_outbox, kept_edit
from chassis.operations.terminal import Shown
from chassis.persistence.bulk import insert_rows
from chassis.persistence.database import Connection, Row
from chassis.persistence.outbox import Outbox, delete_if_in_slot
from chassis.persistence.tables import outbox, outbox_set_aside
from chassis.web.paging import PageLimit, Search, matching, page_of
from contracts.events import EventWithheld, Text
from contracts.operations import OutboxRowDiscardedV1, OutboxRowEditedV1, OutboxRowReleasedV1
from contracts.topics import Topic

_LARGEST_POSITION: Final = 2**63 - 1
_COUNT_AT_MOST: Final = 100_000

_set_aside: Final = outbox_set_aside.c


class NotSetAside(DomainError):
    kind, code = Kind.NOT_FOUND, "not-set-aside"

    def __init__(self, id_: UUID) -> None:
        super().__init__(f"no row with the event id {id_} is set aside")


class NotInCatalogue(DomainError):
    kind, code = Kind.CONFLICT, "not-in-catalogue"

    def __init__(self, topic: str) -> None:
        super().__init__(f"this service publishes no topic {topic}, and does not know its events")


class OutboxSearch(Search):
    """Which rows to find, and which page of them."""

    topic: Text | None = None
    subject: Text | None = None
    after: Annotated[
        int, Field(ge=0, le=_LARGEST_POSITION, description="`next` of the page before.")
    ] = 0
    limit: PageLimit = 50


class OneRow(BaseModel):
    """A row that was set aside, by its event's id."""

    event_id: UUID


class PayloadEdit(OneRow):
    """The event as it is to be published, whole."""

    payload: Payload


class RowBody(BaseModel):
    """A row that Kafka refused, and why."""

    model_config = ConfigDict(from_attributes=True)

    id: Annotated[UUID, Field(description="The event's id.")]
    topic: str
    subject: str
    sequence: int
    type: str
    size_bytes: Annotated[int, Field(description="Of the payload, as it is now.")]
    edited: bool
    error_code: str
    error_message: str
    created_at: datetime
    set_aside_at: datetime


class WholeRowBody(RowBody):
    """A row with everything that would be published."""

    headers: Mapping[str, str]
    payload: dict[str, Any]
    original_payload: Annotated[
        dict[str, Any] | None, Field(description="Before it was edited; null: it was not.")
    ]


class OutboxBody(BaseModel):
    """How much waits in the outbox, and the rows that were set aside, in their order."""

    waiting: Annotated[int, Field(description="Rows not published yet; 100,000: or more.")]
    oldest_waiting_since: datetime | None
    set_aside: list[RowBody]
    next: Annotated[int | None, Field(description="`after` of the next page; null on the last.")]


async def page(runtime: AnyRuntime, search: OutboxSearch) -> OutboxBody:
    """Return the rows that match, without their payloads, and how many rows wait."""
    query = (
        select(*_IN_LISTS)
        .where(_set_aside.position > search.after, *matching(search, _FILTERS))
        .order_by(_set_aside.position)
        .limit(search.limit + 1)
    )
    some = select(outbox.c.position).limit(_COUNT_AT_MOST).subquery()
    oldest = select(outbox.c.created_at).order_by(outbox.c.position).limit(1)
    async with runtime.database.connect() as connection:
        rows = (await connection.execute(query)).all()
        waiting = await connection.scalar(select(func.count()).select_from(some))
        since = await connection.scalar(oldest)
    found = page_of(rows, search.limit, key=lambda row: row.position)
    return OutboxBody(
        waiting=waiting or 0,
        oldest_waiting_since=since,
        set_aside=[RowBody.model_validate(row) for row in found.items],
        next=found.next,
    )


async def show(runtime: AnyRuntime, one: OneRow) -> WholeRowBody:
    """Return a row with its payload.

    :raises NotSetAside: there is none of this event
    """
    query = select(
        *_IN_LISTS, _set_aside.headers, _set_aside.payload, _set_aside.original_payload
    ).where(_set_aside.id == one.event_id)
    async with runtime.database.connect() as connection:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotSetAside(one.event_id)
    original = row.original_payload
    return WholeRowBody(
        **RowBody.model_validate(row).model_dump(),
        headers=row.headers,
        payload=orjson.loads(row.payload),
        original_payload=None if original is None else orjson.loads(original),
    )


async def edit(runtime: AnyRuntime, one: PayloadEdit, operator: Operator) -> None:
    """Have another payload published in the row's place; the original is kept beside it.

    :raises NotSetAside: there is none of this event
    :raises InvalidPayload: it is not the same event, breaks its type's contract, or is too large
    """
    async with runtime.act() as connection:
        row = await _lock(connection, one.event_id)
        encoded = encoded_for_outbox(one.payload, row, _topic_of(runtime, row))
        await connection.execute(
            update(outbox_set_aside)
            .where(_set_aside.position == row.position)
            .values(
                payload=encoded.payload,
                headers={name: value.decode() for name, value in encoded.headers},
                original_payload=func.coalesce(_set_aside.original_payload, _set_aside.payload),
            )
        )
        kept = await kept_edit(connection, encoded.payload, row.payload)
        act = OutboxRowEditedV1(**_details_of(row, operator), **kept)
        await runtime.operator_log.record(connection, {row.id: act})


async def release(runtime: AnyRuntime, one: OneRow, operator: Operator) -> None:
    """Have a row published again, in its place.

    :raises NotSetAside: there is none of this event
    """
    async with runtime.act() as connection:
        row = await _lock(connection, one.event_id)
        await _replace(connection, row, {name: getattr(row, name) for name in _COLUMNS})
        act = OutboxRowReleasedV1(**_details_of(row, operator))
        await runtime.operator_log.record(connection, {row.id: act})


async def discard(runtime: AnyRuntime, one: OneRow, operator: Operator) -> None:
    """Have a withheld event published in the row's place, so that readers see no gap.

    :raises NotSetAside: there is none of this event
    """
    async with runtime.act() as connection:
        row = await _lock(connection, one.event_id)
        topic = _topic_of(runtime, row)
        withheld = Outbox(f"/{runtime.service.name}", runtime.now)
        withheld.append(
            _withheld_type_of(topic)(withheld_id=row.id, withheld_type=row.type),
            topic=topic,
            subject=UUID(row.aggregateid),
            sequence=row.sequence,
            occurred_at=runtime.now(),
        )
        (replacement,) = withheld.take_rows()
        await _replace(connection, row, replacement)
        act = OutboxRowDiscardedV1(**_details_of(row, operator))
        await runtime.operator_log.record(connection, {row.id: act})


_COLUMNS: Final = [column.name for column in outbox.columns if column.name != "position"]
_FILTERS: Final = {"topic": _set_aside.aggregatetype, "subject": _set_aside.aggregateid}
_IN_LISTS: Final = [
    _set_aside.position,
    _set_aside.id,
    _set_aside.aggregatetype.label("topic"),
    _set_aside.aggregateid.label("subject"),
    _set_aside.sequence,
    _set_aside.type,
    func.octet_length(_set_aside.payload).label("size_bytes"),
    _set_aside.original_payload.is_not(None).label("edited"),
    _set_aside.error_code,
    _set_aside.error_message,
    _set_aside.created_at,
    _set_aside.set_aside_at,
]


async def _lock(connection: Connection, id_: UUID) -> Row:
    found = await connection.execute(
        select(outbox_set_aside).where(_set_aside.id == id_).with_for_update()
    )
    row = found.one_or_none()
    if row is None:
        raise NotSetAside(id_)
    return row


async def _replace(connection: Connection, row: Row, columns: Mapping[str, Any]) -> None:
    """Put what has these columns at the row's position, before all later rows."""
    await connection.execute(delete(outbox_set_aside).where(_set_aside.position == row.position))
    await insert_rows(connection, outbox, [{**columns, "position": row.position}])
    await delete_if_in_slot(connection, [row.position])


def _topic_of(runtime: AnyRuntime, row: Row) -> Topic:
    for topic in runtime.service.topics:
        if topic.name == row.aggregatetype:
            return topic
    raise NotInCatalogue(row.aggregatetype)


def _details_of(row: Row, operator: Operator) -> dict[str, Any]:
    """Return the fields that every act on a row has."""
    return {
        "by": operator.by,
        "why": operator.why,
        "topic": row.aggregatetype,
        "row_subject": row.aggregateid,
        "row_sequence": row.sequence,
        "row_type": row.type,
    }


def _withheld_type_of(topic: Topic) -> type[EventWithheld]:
    (withheld,) = (event for event in topic.events if issubclass(event, EventWithheld))
    return withheld


_PAGE_COLUMNS: Final = (
    "id",
    "topic",
    "subject",
    "sequence",
    "type",
    "size_bytes",
    "error_code",
    "edited",
    "set_aside_at",
    "error_message",
)


def _page_shown(found: OutboxBody) -> Shown:
    since = found.oldest_waiting_since
    waiting = f"{found.waiting} wait" + (f", the oldest since {since}" if since else "")
    if not found.set_aside:
        return Shown(waiting)
    rows = terminal.page(found.set_aside, _PAGE_COLUMNS, found.next)
    return Shown(f"{waiting}\n{rows.text}")


def _payload_of(row: WholeRowBody) -> str:
    return orjson.dumps(row.payload, option=orjson.OPT_INDENT_2).decode()


OPERATIONS: Final = (
    Query(
        summary="What waits to be published, and what Kafka refused",
        input=OutboxSearch,
        output=OutboxBody,
        run=page,
        route=Route("GET", "/outbox", "get_outbox"),
        command=Command(name="list", show=_page_shown),
    ),
    Query(
        summary="A row that Kafka refused, whole",
        input=OneRow,
        output=WholeRowBody,
        run=show,
        route=Route("GET", "/outbox/{event_id}", "get_outbox_row"),
        command=Command(name="show", show=terminal.fields, payload_of=_payload_of),
    ),
    Act(
        summary="Change what is published",
        description="Change a row that was set aside. It stays the same event, of the same type."
        "\n\nA payload that Kafka refuses as too large is larger than a request may be, but the"
        " smaller one that replaces it is not.",
        input=PayloadEdit,
        run=edit,
        route=Route("PUT", "/outbox/{event_id}/payload", "put_outbox_payload"),
        command=Command(name="edit", show=terminal.done("edited")),
    ),
    Act(
        summary="Publish it again, in its place",
        input=OneRow,
        run=release,
        route=Route("POST", "/outbox/{event_id}/release", "post_outbox_release"),
        command=Command(name="release", show=terminal.done("released")),
    ),
    Act(
        summary="Never publish it",
        description="Publish a withheld event in its place, under its sequence.",
        input=OneRow,
        run=discard,
        route=Route("POST", "/outbox/{event_id}/discard", "post_outbox_discard"),
        command=Command(name="discard", show=terminal.done("discarded")),
    ),
)
