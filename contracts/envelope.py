"""The envelope of every event on Kafka: CloudEvents 1.0, structured JSON mode."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import (
    UUID7,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError, from_json

from contracts.events import IntegrationEvent, ShortText, Text

CONTENT_TYPE = "application/cloudevents+json"

#: The header with what a client calls the request that an event is published by, if it does. It is
#: a claim that nobody has verified, and others may call theirs the same: so it is not an attribute.
CLIENT_CORRELATION_ID = "client-correlation-id"

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_TEN_DIGITS = re.compile(r"[0-9]{10}")
_VERSIONS = r"v[1-9][0-9]*:[0-9]{10}( v[1-9][0-9]*:[0-9]{10})+"
_LONGEST_VERSIONS = 255

EventT = TypeVar("EventT", bound=IntegrationEvent)


class InvalidEnvelope(ValueError):
    """Bytes that are not an event of ours. The message is one line and quotes none of them."""


def _sequence_from_wire(value: object) -> int:
    if not isinstance(value, str) or not _TEN_DIGITS.fullmatch(value):
        raise PydanticCustomError("ten_digits", "not ten digits")
    number = int(value)
    if not number:
        raise PydanticCustomError("greater_than_equal", "not counted from 1")
    return number


def _versions_from_wire(value: object) -> Mapping[int, int]:
    if (
        not isinstance(value, str)
        or len(value) > _LONGEST_VERSIONS
        or not re.fullmatch(_VERSIONS, value)
    ):
        raise PydanticCustomError("versions", "not versions with their sequences")
    pairs = [each[1:].split(":") for each in value.split(" ")]
    versions = {int(version): int(sequence) for version, sequence in pairs}
    # Fewer than were listed: a version, or a sequence, is there twice.
    if not len(set(versions.values())) == len(versions) == len(pairs) or 0 in versions.values():
        raise PydanticCustomError("versions", "not one sequence for each version")
    return versions


def _versions_to_wire(versions: Mapping[int, int]) -> str:
    return " ".join(f"v{version}:{sequence:010d}" for version, sequence in versions.items())


def _instant_in_utc(value: object) -> datetime:
    # pydantic alone would also take numbers and dates: forms that other readers refuse.
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        value = datetime.fromisoformat(value.upper())
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise PydanticCustomError("rfc3339", "not an RFC 3339 time")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("rfc3339", "outside the years 1 to 9999") from None


# CloudEvents' own `sequence` extension is a string in lexicographic order.
Sequence = Annotated[
    int,
    PlainValidator(_sequence_from_wire),
    PlainSerializer(lambda number: f"{number:010d}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{10}$", "not": {"const": "0000000000"}}),
]
Versions = Annotated[
    Mapping[int, int],
    PlainValidator(_versions_from_wire),
    PlainSerializer(_versions_to_wire, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_VERSIONS}$", "maxLength": _LONGEST_VERSIONS}),
]
Instant = Annotated[AwareDatetime, BeforeValidator(_instant_in_utc)]
EventId = Annotated[
    UUID7,
    WithJsonSchema(
        {
            "type": "string",
            "format": "uuid",
            "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
        }
    ),
]


class Envelope(BaseModel):
    """An event as it is published: its source, its type, its aggregate, its place in the order.

    Attributes that it does not name are ignored, as CloudEvents asks of a reader.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    specversion: Literal["1.0"]
    id: Annotated[EventId, Field(description="A UUIDv7; a repeat has the same.")]
    source: Annotated[Text, Field(description="The service that publishes it, such as /users.")]
    type: Annotated[Text, Field(description="What happened, and the version of its data.")]
    subject: Annotated[Text, Field(description="The aggregate's id; the Kafka key as well.")]
    time: Annotated[Instant, Field(description="When it happened, in UTC.")]
    datacontenttype: Literal["application/json"]
    dataschema: Annotated[Text, Field(description="The $id of the JSON Schema of data.")]
    sequence: Annotated[
        Sequence, Field(description="Counts the events of this subject: from 1, without a gap.")
    ]
    correlationid: Annotated[
        ShortText, Field(description="Shared by every event that one request led to.")
    ]
    causationid: Annotated[
        ShortText | None, Field(description="The event or request that led to this one.")
    ] = None
    traceparent: Annotated[Text | None, Field(description="W3C trace context.")] = None
    versions: Annotated[
        Versions | None,
        Field(
            description="Every version in which this fact is published, with the sequence of the"
            " event that has it. Absent: it is published in this version only."
        ),
    ] = None
    data: dict[str, Any]

    @field_validator("versions")
    @classmethod
    def _contain_this_event(
        cls, versions: Mapping[int, int] | None, info: ValidationInfo
    ) -> Mapping[int, int] | None:
        sequence = info.data.get("sequence")
        if versions is not None and sequence is not None and sequence not in versions.values():
            raise PydanticCustomError("versions", "not those of this event")
        return versions


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """A Kafka record: what the outbox keeps and the relay sends, byte for byte."""

    key: bytes
    payload: bytes
    headers: list[tuple[str, bytes]]


def encode(
    event: IntegrationEvent,
    *,
    id: UUID,  # noqa: A002 - CloudEvents' own name, as are the others
    source: str,
    subject: str,
    time: datetime,
    sequence: int,
    correlationid: str,
    causationid: str | None = None,
    traceparent: str | None = None,
    versions: Mapping[int, int] | None = None,
    client_correlation_id: str | None = None,
) -> EncodedEvent:
    """The record of ``event``: the ``sequence``-th of its ``subject``, counted from 1.

    :param versions: each version in which the fact is published, and its sequence; None: only this
    :param client_correlation_id: for the header of that name; it is not in the envelope
    :raises ValueError: an attribute that readers would refuse
    """
    envelope = Envelope.model_validate(
        {
            "specversion": "1.0",
            "id": id,
            "source": source,
            "type": event.event_type,
            "subject": subject,
            "time": time,
            "datacontenttype": "application/json",
            "dataschema": event.schema_urn(),
            "sequence": f"{sequence:010d}",
            "correlationid": correlationid,
            "causationid": causationid,
            "traceparent": traceparent,
            "versions": None if versions is None else _versions_to_wire(versions),
            "data": event.model_dump(mode="json"),
        }
    )
    headers = headers_of(envelope)
    if client_correlation_id is not None:
        headers.append((CLIENT_CORRELATION_ID, client_correlation_id.encode()))
    return EncodedEvent(
        key=subject.encode(),
        payload=envelope.model_dump_json(exclude_none=True).encode(),
        headers=headers,
    )


def decode(payload: bytes | None) -> Envelope:
    """The envelope in a record's value.

    :raises InvalidEnvelope: it is not valid, or the record has no value
    """
    if payload is None:
        raise InvalidEnvelope("no value")
    try:
        # Parsing and validating in one step costs half, but accepts NaN and Infinity, which are not
        # JSON: a payload that may contain them is parsed first.
        if b"NaN" not in payload and b"Infinity" not in payload:
            return Envelope.model_validate_json(payload)
        return Envelope.model_validate(from_json(payload, allow_inf_nan=False))
    except ValidationError as error:
        raise InvalidEnvelope(_first_reason(error)) from None
    except ValueError as error:
        raise InvalidEnvelope(f"not JSON: {error}") from None


def event_in(envelope: Envelope, model: type[EventT]) -> EventT:
    """The envelope's data as an event of ``model``.

    :raises InvalidEnvelope: the data is not what the model's schema says
    """
    try:
        return model.model_validate(envelope.data)
    except ValidationError as error:
        raise InvalidEnvelope(f"data.{_first_reason(error)}") from None


def headers_of(envelope: Envelope) -> list[tuple[str, bytes]]:
    """The Kafka headers of an event: enough to skip it without parsing and still count it.

    No header begins with ``ce_``, which means binary mode: a reader would look for the event's
    attributes in the headers instead of in the value.
    """
    headers = [
        ("content-type", CONTENT_TYPE),
        ("type", envelope.type),
        ("id", str(envelope.id)),
        ("subject", envelope.subject),
        ("sequence", f"{envelope.sequence:010d}"),
    ]
    if envelope.traceparent is not None:
        headers.append(("traceparent", envelope.traceparent))
    return [(name, value.encode()) for name, value in headers]


def _first_reason(error: ValidationError) -> str:
    """Which attribute breaks which rule: names and codes of ours, never a received value."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"not JSON: {first['ctx']['error']}"
    attribute = ".".join(str(part) for part in first["loc"])
    return f"{attribute}: {first['type']}" if attribute else first["type"]
