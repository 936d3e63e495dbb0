"""The payload that an operator gives in place of an event's: it must still be the same event."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from sqlalchemy import insert

from chassis.consuming.subscribers import EventSubscriber
from chassis.correlation import new_id
from chassis.domain import BrokenField, DomainError, InvalidFields, Kind
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import edited_payloads
from contracts.envelope import (
    CLIENT_CORRELATION_ID,
    EncodedEvent,
    InvalidEnvelope,
    decode,
    encode,
    event_in,
)
from contracts.events import IntegrationEvent, Text
from contracts.operations import MOST_PAYLOAD_BYTES
from contracts.topics import Topic

Payload = Annotated[dict[str, Any], Field(description="The whole event, as JSON.")]


_SUBJECT: Final[TypeAdapter[str]] = TypeAdapter(Text)  # takes UTF-8 bytes too


class NotEditable(DomainError):
    """Nothing may be put in this event's place."""

    kind, code = Kind.CONFLICT, "not-editable"


class InvalidPayload(InvalidFields):
    """A payload that can't take the place of an event's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(BrokenField("payload", code, message))


def bytes_for_subscriber(
    payload: dict[str, Any], row: Row, subscriber: EventSubscriber[Any]
) -> bytes:
    """Return what a subscriber handles in place of a row of ``parked``.

    Where the row's bytes do not contain its subject, its record's key has to be the subject.

    :raises InvalidPayload: it is another event than the row's, or none that is handled
    :raises NotEditable: nothing tells which subject the row is about
    """
    subject = row.subject or _subject_in(row.key)
    try:
        encoded = json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
        identity = subscriber.identity_of_edited(encoded)
    except InvalidEnvelope as error:
        raise InvalidPayload("not-an-event", str(error)) from None
    except ValueError:
        raise InvalidPayload("not-an-event", "no JSON that other programs can read") from None
    _check_same_event({"subject": (identity.subject, subject)})
    _check_data(payload["data"], subject, subscriber.topic)
    if row.subject is not None:
        _check_same_event(
            {
                "id": (identity.event_id, row.event_id),
                "sequence": (identity.sequence, row.sequence),
            }
        )
    return encoded


def _subject_in(key: bytes | None) -> str:
    try:
        return _SUBJECT.validate_python(key)
    except ValidationError:
        raise NotEditable(
            "neither its bytes nor its record's key tell which subject it is about: discard it"
        ) from None


async def kept_edit(connection: Connection, new: bytes, replaced: bytes | None) -> dict[str, Any]:
    """Return the fields of an edit's act; bytes that are too large for it are kept in a row."""
    fields: dict[str, Any] = {
        "payload_sha256": hashlib.sha256(new).hexdigest(),
        "replaced_sha256": None if replaced is None else hashlib.sha256(replaced).hexdigest(),
    }
    if len(new) <= MOST_PAYLOAD_BYTES:
        return {**fields, "payload": new.decode()}
    id_ = new_id()
    await connection.execute(insert(edited_payloads).values(id=id_, payload=new))
    return {**fields, "payload_id": id_}


def encoded_for_outbox(payload: dict[str, Any], row: Row, topic: Topic) -> EncodedEvent:
    """Return what is published in place of a row that was set aside.

    :raises InvalidPayload: it is not the row's event, breaks its type's contract, or is too large
    """
    try:
        envelope = decode(orjson.dumps(payload))
    except (InvalidEnvelope, TypeError) as error:
        raise InvalidPayload("not-an-event", str(error)) from None
    first = orjson.loads(row.payload)
    _check_same_event(
        {
            "id": (envelope.id, row.id),
            "source": (envelope.source, first["source"]),
            "type": (envelope.type, row.type),
            "subject": (envelope.subject, row.aggregateid),
            "sequence": (envelope.sequence, row.sequence),
            "versions": (payload.get("versions"), first.get("versions")),
        }
    )
    _check_data(envelope.data, row.aggregateid, topic)
    try:
        event = event_in(envelope, _model_of(row.type, topic))
    except InvalidEnvelope as error:
        raise InvalidPayload("wrong-data", str(error)) from None
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
        versions=envelope.versions,
        client_correlation_id=row.headers.get(CLIENT_CORRELATION_ID),
    )
    size = largest_size_bytes(encoded)
    if size > topic.max_message_bytes:
        raise InvalidPayload(
            "too-large", f"{size} bytes; {topic.name} takes {topic.max_message_bytes}"
        )
    return encoded


def _model_of(type_: str, topic: Topic) -> type[IntegrationEvent]:
    for model in topic.events:
        if model.event_type == type_:
            return model
    raise InvalidPayload("wrong-data", f"{topic.name} has no events of the type {type_}")


# Apache Kafka, "Record Batch" and "Record": a batch's header, and the lengths within a record.
_BATCH_BYTES: Final = 61
_RECORD_BYTES: Final = 21
_HEADER_BYTES: Final = 10


def largest_size_bytes(encoded: EncodedEvent) -> int:
    """Return how large the event can be for Kafka, alone in its batch and uncompressed."""
    headers = sum(len(name) + len(value) + _HEADER_BYTES for name, value in encoded.headers)
    own = len(encoded.key) + len(encoded.payload)
    return _BATCH_BYTES + _RECORD_BYTES + headers + own


def _check_same_event(given_and_known: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (given, known) in given_and_known.items():
        if given != known:
            raise InvalidPayload("another-event", f"{name}: must stay {known}")


def _check_data(data: Mapping[str, Any], subject: str, topic: Topic) -> None:
    """Check that the data is about the subject too: handlers read it there."""
    name = topic.subject_field
    if name in data:
        _check_same_event({f"data.{name}": (data[name], subject)})
