"""The rows that Kafka refused: an operator looks, edits, and releases or discards each.

Whatever comes of a row takes its place in the outbox, and the aggregate's later rows go out
behind it, in their order.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.domain import DomainError, Kind
from chassis.operations.acts import Operator
from chassis.operations.context import ServiceRuntime
from chassis.operations.payloads import broken_payload, check_same
from chassis.persistence.bulk import insert_rows
from chassis.persistence.outbox import Outbox, columns_of
from chassis.persistence.tables import outbox, outbox_set_aside
from contracts.envelope import EncodedEvent, InvalidEnvelope, decode, encode, event_in
from contracts.events import EventWithheld, IntegrationEvent, Text
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
        super().__init__(
            f"this service publishes no topic {topic}: nobody knows what belongs there"
        )


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
    """A row with all that would be published."""

    headers: Mapping[str, str]
    payload: dict[str, Any]
    original_payload: Annotated[
        dict[str, Any] | None, Field(description="Before it was edited; null: it was not.")
    ]


class OutboxBody(BaseModel):
    """How the outbox stands, and the rows that were set aside, in the order they were written."""

    waiting: Annotated[int, Field(description="Rows not published yet; 100,000: or more.")]
    oldest_waiting_since: datetime | None
    set_aside: list[RowBody]
    next: Annotated[int | None, Field(description="`after` of the next page; null on the last.")]


class OutboxSearch(BaseModel):
    """What to look for: a row is found where all that is given holds."""

    # A filter that is misspelt must not find everything.
    model_config = ConfigDict(extra="forbid")

    topic: Text | None = None
    subject: Text | None = None
    after: Annotated[int, Field(ge=0, le=_LARGEST_POSITION)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class SetAside:
    """The rows of one service's outbox that were set aside; each act is told, with who and why."""

    def __init__(self, operations: ServiceRuntime[Any, Any]) -> None:
        self._operations = operations
        self._topics = {topic.name: topic for topic in operations.service.topics}

    async def page(self, search: OutboxSearch) -> OutboxBody:
        """Return the rows that match, without their payloads, and what waits beside them."""
        query = (
            select(*_IN_LISTS)
            .where(_set_aside.position > search.after)
            .order_by(_set_aside.position)
            .limit(search.limit + 1)
        )
        if search.topic is not None:
            query = query.where(_set_aside.aggregatetype == search.topic)
        if search.subject is not None:
            query = query.where(_set_aside.aggregateid == search.subject)
        some = select(outbox.c.position).limit(_COUNT_AT_MOST).subquery()
        oldest = select(outbox.c.created_at).order_by(outbox.c.position).limit(1)
        async with self._operations.engine.connect() as connection:
            rows = (await connection.execute(query)).all()
            waiting = await connection.scalar(select(func.count()).select_from(some))
            since = await connection.scalar(oldest)
        page = rows[: search.limit]
        return OutboxBody(
            waiting=waiting or 0,
            oldest_waiting_since=since,
            set_aside=[RowBody.model_validate(row) for row in page],
            next=page[-1].position if len(rows) > len(page) else None,
        )

    async def whole(self, id_: UUID) -> WholeRowBody:
        """Return a row with its payload.

        :raises NotSetAside: there is none of this event
        """
        query = select(
            *_IN_LISTS, _set_aside.headers, _set_aside.payload, _set_aside.original_payload
        ).where(_set_aside.id == id_)
        async with self._operations.engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotSetAside(id_)
        said = RowBody.model_validate(row).model_dump()
        original = row.original_payload
        return WholeRowBody(
            **said,
            headers=row.headers,
            payload=orjson.loads(row.payload),
            original_payload=None if original is None else orjson.loads(original),
        )

    async def edit(self, id_: UUID, payload: Mapping[str, Any], operator: Operator) -> None:
        """Have other bytes published in the row's place; the first are kept beside them.

        :raises NotSetAside: there is none of this event
        :raises InvalidFields: it is not the same event, not what its type says, or too large
        """
        async with self._operations.act() as connection:
            row = await _lock(connection, id_)
            encoded = _edited(row, payload, self._topic_of(row))
            await connection.execute(
                update(outbox_set_aside)
                .where(_set_aside.position == row.position)
                .values(
                    payload=encoded.payload,
                    headers={name: value.decode() for name, value in encoded.headers},
                    original_payload=func.coalesce(_set_aside.original_payload, _set_aside.payload),
                )
            )
            sha256 = hashlib.sha256(encoded.payload).hexdigest()
            act = OutboxRowEditedV1(**_told_of(row, operator), payload_sha256=sha256)
            await self._operations.operator_log.record(connection, {id_: act})

    async def release(self, id_: UUID, operator: Operator) -> None:
        """Have it published again, in its place.

        :raises NotSetAside: there is none of this event
        """
        async with self._operations.act() as connection:
            row = await _lock(connection, id_)
            await _replace(connection, row, {name: getattr(row, name) for name in _COLUMNS})
            act = OutboxRowReleasedV1(**_told_of(row, operator))
            await self._operations.operator_log.record(connection, {id_: act})

    async def discard(self, id_: UUID, operator: Operator) -> None:
        """Have a small event published in its place that says so, so that consumers count on.

        :raises NotSetAside: there is none of this event
        """
        operations = self._operations
        async with operations.act() as connection:
            row = await _lock(connection, id_)
            topic = self._topic_of(row)
            withheld = Outbox(f"/{operations.service.name}", operations.now)
            withheld.append(
                _withheld_type_of(topic)(withheld_id=row.id, withheld_type=row.type),
                topic=topic,
                subject=UUID(row.aggregateid),
                sequence=row.sequence,
                occurred_at=operations.now(),
            )
            (instead,) = withheld.take_rows()
            await _replace(connection, row, columns_of(instead))
            act = OutboxRowDiscardedV1(**_told_of(row, operator))
            await operations.operator_log.record(connection, {id_: act})

    def _topic_of(self, row: Row[Any]) -> Topic:
        topic = self._topics.get(row.aggregatetype)
        if topic is None:
            raise NotInCatalogue(row.aggregatetype)
        return topic


_COLUMNS: Final = [column.name for column in outbox.columns if column.name != "position"]
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


async def _lock(connection: AsyncConnection, id_: UUID) -> Row[Any]:
    found = await connection.execute(
        select(outbox_set_aside).where(_set_aside.id == id_).with_for_update()
    )
    row = found.one_or_none()
    if row is None:
        raise NotSetAside(id_)
    return row


async def _replace(connection: AsyncConnection, row: Row[Any], columns: dict[str, Any]) -> None:
    """Put what has these columns where the row was, before all that came later."""
    await connection.execute(delete(outbox_set_aside).where(_set_aside.position == row.position))
    await insert_rows(connection, outbox, [columns | {"position": row.position}])


def _told_of(row: Row[Any], operator: Operator) -> dict[str, Any]:
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


def _edited(row: Row[Any], payload: Mapping[str, Any], topic: Topic) -> EncodedEvent:
    """Return what would be published of the payload.

    :raises InvalidFields: it is not the row's event, not what its type says, or too large
    """
    try:
        envelope = decode(orjson.dumps(payload))
    except (InvalidEnvelope, TypeError) as error:
        raise broken_payload("not-an-event", str(error)) from None
    first = orjson.loads(row.payload)
    check_same(
        {
            "id": (envelope.id, row.id),
            "source": (envelope.source, first["source"]),
            "type": (envelope.type, row.type),
            "subject": (envelope.subject, row.aggregateid),
            "sequence": (envelope.sequence, row.sequence),
        }
    )
    try:
        event = event_in(envelope, _model_of(row.type, topic))
    except InvalidEnvelope as error:
        raise broken_payload("wrong-data", str(error)) from None
    encoded = encode(
        event,
        id=envelope.id,
        source=envelope.source,
        subject=envelope.subject,
        time=envelope.time,
        sequence=envelope.sequence,
        correlationid=envelope.correlationid,
        causationid=envelope.causationid,
        traceparent=envelope.traceparent,
    )
    size = largest_size_bytes(encoded)
    if size > topic.max_message_bytes:
        raise broken_payload(
            "too-large", f"{size} bytes; {topic.name} takes {topic.max_message_bytes}"
        )
    return encoded


def _model_of(type_: str, topic: Topic) -> type[IntegrationEvent]:
    for model in topic.events:
        if model.event_type == type_:
            return model
    raise broken_payload("wrong-data", f"{topic.name} has no events of the type {type_}")


# Apache Kafka, "Record Batch" and "Record": a batch's header, and the lengths within a record.
_BATCH_BYTES: Final = 61
_RECORD_BYTES: Final = 21
_HEADER_BYTES: Final = 10


def largest_size_bytes(encoded: EncodedEvent) -> int:
    """Return how large the event can be for Kafka, alone in its batch and uncompressed."""
    headers = sum(len(name) + len(value) + _HEADER_BYTES for name, value in encoded.headers)
    own = len(encoded.key) + len(encoded.payload)
    return _BATCH_BYTES + _RECORD_BYTES + headers + own
