"""The events that subscribers could not handle: an operator looks, edits and discards."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Row, delete, func, select, update

from chassis.consuming.dead_letters import ParkReason, headers_in
from chassis.consuming.records import EventIdentity
from chassis.consuming.subscribers import EventSubscriber
from chassis.domain import DomainError, Kind
from chassis.operations.acts import Operator
from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letter_rows import NoSuchParkedEvent, locked, locked_row
from chassis.operations.payloads import broken_payload, check_same
from chassis.persistence.tables import parked
from contracts.envelope import InvalidEnvelope
from contracts.events import Text
from contracts.operations import ParkedEventDiscardedV1, ParkedEventEditedV1


class NotEditable(DomainError):
    kind, code = Kind.CONFLICT, "not-editable"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} keeps what comes as it came")


class ParkedBody(BaseModel):
    """An event that a subscriber could not handle, and why."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    subscriber: str
    topic: str
    partition: int
    offset: int
    subject: Annotated[str | None, Field(description="Null: the bytes do not tell.")]
    sequence: int | None
    event_id: UUID | None
    type: str | None
    reason: ParkReason
    error_code: str
    error_message: str
    tries: int
    first_tried_at: datetime
    last_tried_at: datetime
    size_bytes: Annotated[int | None, Field(description="Of the payload as it came.")]
    edited: bool


class HeaderBody(BaseModel):
    """A header as it came, in base64 where it is no text."""

    name: str
    text: str | None
    base64: str | None


class WholeParkedBody(ParkedBody):
    """A parked event with all that Kafka gave us, in base64 where it is no text."""

    key: str | None
    key_base64: str | None
    headers: list[HeaderBody]
    payload: str | None
    payload_base64: str | None
    edited_payload: Annotated[
        str | None, Field(description="What is handled in its place; null: it was not edited.")
    ]


class ParkedPage(BaseModel):
    """Parked events, those that were parked first first."""

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
    subjects: Annotated[int, Field(description="Those without a subject count in none.")]
    oldest: Annotated[datetime, Field(description="When the first was tried first.")]


class ParkedCounts(BaseModel):
    """How many events are parked, the most first."""

    counts: list[ParkedCount]


class ParkedFilter(BaseModel):
    """What to look for: an event is found where all that is given holds."""

    # A filter that is misspelt must not find everything.
    model_config = ConfigDict(extra="forbid")

    subscriber: Text | None = None
    topic: Text | None = None
    subject: Text | None = None
    reason: ParkReason | None = None
    error_code: Text | None = None
    type: Text | None = None


class ParkedSearch(ParkedFilter):
    """A page of what is looked for."""

    after: Annotated[UUID | None, Field(description="`next` of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class DeadLetters:
    """What the subscribers of one service have parked; each act is told, with who and why."""

    def __init__(self, operations: ServiceRuntime[Any, Any]) -> None:
        self._operations = operations

    async def page(self, search: ParkedSearch) -> ParkedPage:
        """Return the events that match, without their payloads."""
        query = select(*_IN_LISTS).where(*_conditions(search))
        query = query.order_by(parked.c.id).limit(search.limit + 1)
        if search.after is not None:
            query = query.where(parked.c.id > search.after)
        async with self._operations.engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        page = [ParkedBody.model_validate(row) for row in rows[: search.limit]]
        return ParkedPage(parked=page, next=page[-1].id if len(rows) > len(page) else None)

    async def count(self, wanted: ParkedFilter) -> ParkedCounts:
        """Count the events that match, by subscriber, topic, reason and error."""
        of = (parked.c.subscriber, parked.c.topic, parked.c.reason, parked.c.error_code)
        query = (
            select(
                *of,
                func.count().label("events"),
                func.count(parked.c.subject.distinct()).label("subjects"),
                func.min(parked.c.first_tried_at).label("oldest"),
            )
            .where(*_conditions(wanted))
            .group_by(*of)
            .order_by(func.count().desc(), *of)
        )
        async with self._operations.engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return ParkedCounts(counts=[ParkedCount.model_validate(row) for row in rows])

    async def whole(self, id_: UUID) -> WholeParkedBody:
        """Return an event with its bytes.

        :raises NoSuchParkedEvent: there is none under this id
        """
        query = select(*_IN_LISTS, *_WHOLE).where(parked.c.id == id_)
        async with self._operations.engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NoSuchParkedEvent(id_)
        key, key_base64 = _readable(row.key)
        payload, payload_base64 = _readable(row.payload)
        edited, _ = _readable(row.edited_payload)
        headers = [(name, *_readable(value)) for name, value in headers_in(row.headers)]
        return WholeParkedBody(
            **ParkedBody.model_validate(row).model_dump(),
            key=key,
            key_base64=key_base64,
            headers=[HeaderBody(name=n, text=text, base64=b64) for n, text, b64 in headers],
            payload=payload,
            payload_base64=payload_base64,
            edited_payload=edited,
        )

    async def edit(self, id_: UUID, payload: Mapping[str, Any], operator: Operator) -> None:
        """Have other bytes handled in the event's place; those that came are kept.

        :raises NoSuchParkedEvent: there is none under this id
        :raises NotEditable: its subscriber keeps what comes as it came
        :raises InvalidFields: it is another event, or none that the subscriber handles
        """
        async with self._operations.act() as connection:
            row, subscriber = await locked(connection, id_, self._operations)
            if not isinstance(subscriber, EventSubscriber):
                raise NotEditable(subscriber.name)
            edited = _edited(row, payload, subscriber)
            await connection.execute(
                update(parked).where(parked.c.id == id_).values(edited_payload=edited)
            )
            sha256 = hashlib.sha256(edited).hexdigest()
            act = ParkedEventEditedV1(**details_of(row, operator), payload_sha256=sha256)
            await self._operations.operator_log.record(connection, {id_: act})

    async def discard(self, id_: UUID, operator: Operator) -> None:
        """Drop an event; its subscriber will never handle it.

        :raises NoSuchParkedEvent: there is none under this id
        """
        async with self._operations.act() as connection:
            row = await locked_row(connection, id_)
            await connection.execute(delete(parked).where(parked.c.id == id_))
            act = ParkedEventDiscardedV1(**details_of(row, operator))
            await self._operations.operator_log.record(connection, {id_: act})


_IN_LISTS: Final[Sequence[ColumnElement[Any]]] = [
    *(parked.c[name] for name in ParkedBody.model_fields if name not in ("size_bytes", "edited")),
    func.octet_length(parked.c.payload).label("size_bytes"),
    parked.c.edited_payload.is_not(None).label("edited"),
]
_WHOLE: Final = (parked.c.key, parked.c.headers, parked.c.payload, parked.c.edited_payload)


def details_of(row: Row[Any], operator: Operator) -> dict[str, Any]:
    """Return what every act on a parked event tells of it."""
    return {
        "by": operator.by,
        "why": operator.why,
        "subscriber": row.subscriber,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "parked_subject": row.subject,
        "parked_event_id": row.event_id,
        "parked_type": row.type,
    }


def _conditions(wanted: ParkedFilter) -> list[ColumnElement[bool]]:
    return [
        parked.c[name] == value
        for name in ParkedFilter.model_fields
        if (value := getattr(wanted, name)) is not None
    ]


def _readable(data: bytes | None) -> tuple[str | None, str | None]:
    """Return bytes as text, or in base64 where they are none."""
    if data is None:
        return None, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode()


def _edited(row: Row[Any], payload: Mapping[str, Any], subscriber: EventSubscriber[Any]) -> bytes:
    """Return the bytes of the payload.

    :raises InvalidFields: it is another event than the row's, or none that is handled
    """
    try:
        edited = json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
        label = subscriber.label_of_edited(edited)
    except InvalidEnvelope as error:
        raise broken_payload("not-an-event", str(error)) from None
    except ValueError:
        raise broken_payload("not-an-event", "no JSON that others read") from None
    if row.subject is not None:
        _check_same(row, label)
    return edited


def _check_same(row: Row[Any], label: EventIdentity) -> None:
    check_same(
        {
            "id": (label.event_id, row.event_id),
            "subject": (label.subject, row.subject),
            "sequence": (label.sequence, row.sequence),
        }
    )
