"""A record as Kafka delivered it, and which event it holds, read without parsing its value."""

import base64
import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from contracts.envelope import CONTENT_TYPE, Envelope, InvalidEnvelope, decode

_TEN_DIGITS: Final = re.compile(rb"[0-9]{10}")
_LONGEST_TEXT: Final = 255
_UUID_VERSION: Final = 7


class Record(Protocol):
    """One Kafka record, as aiokafka's ``ConsumerRecord`` has it."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class EventIdentity(NamedTuple):
    """Which event of which subject a record holds."""

    subject: str
    sequence: int
    event_id: UUID
    type: str


def identity_of(record: Record) -> EventIdentity:
    """Return which event a record holds: from its headers, or else from its value.

    :raises InvalidEnvelope: neither identifies an event
    """
    return _identity_in_headers(record.headers) or identity_in(decode(record.value))


def identity_in(envelope: Envelope) -> EventIdentity:
    """Return the identity of an event."""
    return EventIdentity(envelope.subject, envelope.sequence, envelope.id, envelope.type)


def open_record(record: Record, identity: EventIdentity) -> Envelope:
    """Parse the value of a record.

    :raises InvalidEnvelope: it is no event, or another than the headers identify
    """
    envelope = decode(record.value)
    if identity_in(envelope) != identity:
        raise InvalidEnvelope("headers: not those of the event in the value")
    return envelope


def header_as_json(name: str, value: bytes | None) -> Sequence[str | None]:
    """Return the form in which a header is kept: its name, and its value in base64.

    Where the name is not UTF-8, a third element has its bytes in base64.
    """
    encoded = None if value is None else base64.b64encode(value).decode()
    raw = name.encode("utf-8", "surrogateescape")
    shown = readable_name(name)
    return (name, encoded) if shown == name else (shown, encoded, base64.b64encode(raw).decode())


def header_from_json(kept: Sequence[str | None]) -> tuple[str, bytes | None]:
    """Return a header from the form in which it is kept."""
    name, encoded, *raw = kept
    value = None if encoded is None else base64.b64decode(encoded)
    if raw and raw[0] is not None:
        return base64.b64decode(raw[0]).decode("utf-8", "surrogateescape"), value
    return name or "", value


def readable_name(name: str) -> str:
    """Return a header's name as text, with a backslash and a number for what is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _identity_in_headers(headers: Sequence[tuple[str, bytes | None]]) -> EventIdentity | None:
    # Of two headers with one name the first counts; a header without a value counts as empty.
    found = {name: value or b"" for name, value in reversed(headers)}
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise InvalidEnvelope("headers: a name is not UTF-8") from error
    if found.get("content-type") != CONTENT_TYPE.encode():
        return None
    sequence = found.get("sequence", b"")
    if not _TEN_DIGITS.fullmatch(sequence) or not int(sequence):
        return None
    try:
        event_id = UUID(found.get("id", b"").decode("ascii"))
        subject, type_ = found.get("subject", b"").decode(), found.get("type", b"").decode()
    except ValueError:
        return None
    if event_id.version != _UUID_VERSION:
        return None
    if not all(0 < len(text) <= _LONGEST_TEXT and text.isprintable() for text in (subject, type_)):
        return None
    return EventIdentity(subject, int(sequence), event_id, type_)
