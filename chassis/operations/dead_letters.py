"""The events that subscribers could not handle: an operator reads, edits and discards them."""

import base64
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, delete, func, select, update

from chassis.consuming.dead_letters import ParkReason, headers_in
from chassis.consuming.records import readable_name
from chassis.consuming.subscribers import EventSubscriber
from chassis.operations import terminal
from chassis.operations.acts import Act, Command, Query, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import (
    NoSuchParkedEvent,
    OneParkedEvent,
    details_of,
    locked,
    locked_row,
)
from chassis.operations.operator_log import Operator
from chassis.operations.payloads import NotEditable, Payload, bytes_for_subscriber, kept_edit
from chassis.operations.terminal import Shown
from chassis.persistence.tables import parked
from chassis.web.paging import PageLimit, Search, matching, page_of
from contracts.events import Text
from contracts.operations import ParkedEventDiscardedV1, ParkedEventEditedV1


class ParkedFilter(Search):
    """Which parked events to find."""

    subscriber: Text | None = None
    topic: Text | None = None
    subject: Text | None = None
    reason: ParkReason | None = None
    error_code: Text | None = None
    type: Text | None = None


class ParkedSearch(ParkedFilter):
    """Which parked events to find, and which page of them."""

    after: Annotated[UUID | None, Field(description="`next` of the page before.")] = None
    limit: PageLimit = 50


class ParkedEdit(OneParkedEvent):
    """The event as it is to be handled, whole."""

    payload: Payload


class ParkedBody(BaseModel):
    """An event that a subscriber could not handle, and why."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    subscriber: str
    topic: str
    partition: int
    offset: int
    subject: Annotated[str | None, Field(description="Null: the bytes do not contain it.")]
    sequence: int | None
    event_id: UUID | None
    type: str | None
    reason: ParkReason
    error_code: str
    error_message: str
    tries: int
    first_tried_at: datetime
    last_tried_at: datetime
    size_bytes: Annotated[int | None, Field(description="Of the payload as it was delivered.")]
    edited: bool


class HeaderBody(BaseModel):
    """A header as it was delivered, in base64 if it is no text."""

    name: str
    text: str | None
    base64: str | None


class WholeParkedBody(ParkedBody):
    """A parked event with everything that Kafka delivered, in base64 where it is no text."""

    key: str | None
    key_base64: str | None
    headers: list[HeaderBody]
    payload: str | None
    payload_base64: str | None
    edited_payload: Annotated[
        str | None, Field(description="What is handled in its place; null: it was not edited.")
    ]


class ParkedPage(BaseModel):
    """Parked events, in the order in which they were parked."""

    parked: list[ParkedBody]
    next: Annotated[UUID | None, Field(description="`after` of the next page; null on the last.")]


class ParkedCount(BaseModel):
    """How many events a subscriber parked for one reason."""

    model_config = ConfigDict(from_attributes=True)

    subscriber: str
    topic: str
    reason: ParkReason
    error_code: str
    events: int
    subjects: Annotated[int, Field(description="Events without a subject are not counted.")]
    oldest: Annotated[datetime, Field(description="The first attempt at any of them.")]


class ParkedCounts(BaseModel):
    """How many events are parked, the largest count first."""

    counts: list[ParkedCount]


async def page(runtime: AnyRuntime, search: ParkedSearch) -> ParkedPage:
    """Return the events that match, without their payloads."""
    query = select(*_IN_LISTS).where(*matching(search, _FILTERS))
    query = query.order_by(parked.c.id).limit(search.limit + 1)
    if search.after is not None:
        query = query.where(parked.c.id > search.after)
    async with runtime.database.connect() as connection:
        rows = (await connection.execute(query)).all()
    found = page_of(rows, search.limit, key=lambda row: row.id)
    return ParkedPage(
        parked=[ParkedBody.model_validate(row) for row in found.items], next=found.next
    )


async def count(runtime: AnyRuntime, wanted: ParkedFilter) -> ParkedCounts:
    """Count the events that match, by subscriber, topic, reason and error."""
    of = (parked.c.subscriber, parked.c.topic, parked.c.reason, parked.c.error_code)
    query = (
        select(
            *of,
            func.count().label("events"),
            func.count(parked.c.subject.distinct()).label("subjects"),
            func.min(parked.c.first_tried_at).label("oldest"),
        )
        .where(*matching(wanted, _FILTERS))
        .group_by(*of)
        .order_by(func.count().desc(), *of)
    )
    async with runtime.database.connect() as connection:
        rows = (await connection.execute(query)).all()
    return ParkedCounts(counts=[ParkedCount.model_validate(row) for row in rows])


async def show(runtime: AnyRuntime, event: OneParkedEvent) -> WholeParkedBody:
    """Return an event with its bytes.

    :raises NoSuchParkedEvent: there is none under this id
    """
    query = select(*_IN_LISTS, *_WHOLE).where(parked.c.id == event.parked_id)
    async with runtime.database.connect() as connection:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NoSuchParkedEvent(event.parked_id)
    key, key_base64 = _readable(row.key)
    payload, payload_base64 = _readable(row.payload)
    edited, _ = _readable(row.edited_payload)
    headers = [(readable_name(name), *_readable(value)) for name, value in headers_in(row.headers)]
    return WholeParkedBody(
        **ParkedBody.model_validate(row).model_dump(),
        key=key,
        key_base64=key_base64,
        headers=[HeaderBody(name=n, text=text, base64=b64) for n, text, b64 in headers],
        payload=payload,
        payload_base64=payload_base64,
        edited_payload=edited,
    )


async def edit(runtime: AnyRuntime, event: ParkedEdit, operator: Operator) -> None:
    """Have another payload handled in the event's place; the original is kept.

    :raises NoSuchParkedEvent: there is none under this id
    :raises NotEditable: its subscriber keeps every record as it was delivered, or nothing tells
        which subject it is about
    :raises InvalidPayload: it is another event, or none that the subscriber handles
    """
    async with runtime.act() as connection:
        row, subscriber = await locked(connection, event.parked_id, runtime)
        if not isinstance(subscriber, EventSubscriber):
            raise NotEditable(f"{subscriber.name} keeps every record as it was delivered")
        edited = bytes_for_subscriber(event.payload, row, subscriber)
        await connection.execute(
            update(parked).where(parked.c.id == row.id).values(edited_payload=edited)
        )
        replaced = row.payload if row.edited_payload is None else row.edited_payload
        kept = await kept_edit(connection, edited, replaced)
        act = ParkedEventEditedV1(**details_of(row, operator), **kept)
        await runtime.operator_log.record(connection, {row.id: act})


async def discard(runtime: AnyRuntime, event: OneParkedEvent, operator: Operator) -> None:
    """Delete an event; its subscriber will never handle it.

    :raises NoSuchParkedEvent: there is none under this id
    """
    async with runtime.act() as connection:
        row = await locked_row(connection, event.parked_id)
        await connection.execute(delete(parked).where(parked.c.id == row.id))
        act = ParkedEventDiscardedV1(**details_of(row, operator))
        await runtime.operator_log.record(connection, {row.id: act})


_IN_LISTS: Final[list[ColumnElement[Any]]] = [
    *(parked.c[name] for name in ParkedBody.model_fields if name not in ("size_bytes", "edited")),
    func.octet_length(parked.c.payload).label("size_bytes"),
    parked.c.edited_payload.is_not(None).label("edited"),
]
_WHOLE: Final = (parked.c.key, parked.c.headers, parked.c.payload, parked.c.edited_payload)
_FILTERS: Final = {name: parked.c[name] for name in ParkedFilter.model_fields}


def _readable(data: bytes | None) -> tuple[str | None, str | None]:
    """Return bytes as text, or in base64 if they are no text."""
    if data is None:
        return None, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode()


_PAGE_COLUMNS: Final = (
    *("id", "subscriber", "subject", "sequence", "type", "reason", "error_code", "last_tried_at"),
    "error_message",
)


def _whole_shown(event: WholeParkedBody) -> Shown:
    """Show a parked event with its headers as lines, and bytes that are JSON indented."""
    headers = [
        f"header {each.name}: {each.base64 if each.text is None else each.text}"
        for each in event.headers
    ]
    return Shown("\n".join([*headers, terminal.fields(event, without="headers").text]))


def _page_shown(found: ParkedPage) -> Shown:
    return terminal.page(found.parked, _PAGE_COLUMNS, found.next)


def _counts_shown(found: ParkedCounts) -> Shown:
    return Shown(terminal.table(found.counts, tuple(ParkedCount.model_fields)))


def _payload_of(event: WholeParkedBody) -> str:
    return event.edited_payload or event.payload or ""


OPERATIONS: Final = (
    Query(
        summary="What could not be handled",
        input=ParkedSearch,
        output=ParkedPage,
        run=page,
        route=Route("GET", "/parked", "get_parked"),
        command=Command(name="list", show=_page_shown),
    ),
    Query(
        summary="How much could not be handled, and why",
        input=ParkedFilter,
        output=ParkedCounts,
        run=count,
        route=Route("GET", "/parked/count", "get_parked_count"),
        of_people=False,
        command=Command(name="count", show=_counts_shown),
    ),
    Query(
        summary="A parked event, whole",
        input=OneParkedEvent,
        output=WholeParkedBody,
        run=show,
        route=Route("GET", "/parked/{parked_id}", "get_parked_event"),
        command=Command(name="show", show=_whole_shown, payload_of=_payload_of),
    ),
    Act(
        summary="Change what is handled",
        description="Have other bytes handled in its place, of the same event."
        " The original is kept. Where its bytes do not contain its subject, its record's key has"
        " to be the subject.",
        input=ParkedEdit,
        run=edit,
        route=Route("PUT", "/parked/{parked_id}/payload", "put_parked_payload"),
        command=Command(name="edit", show=terminal.done("edited")),
    ),
    Act(
        summary="Never handle it",
        input=OneParkedEvent,
        run=discard,
        route=Route("POST", "/parked/{parked_id}/discard", "post_parked_discard"),
        command=Command(name="discard", show=terminal.done("discarded")),
    ),
)
