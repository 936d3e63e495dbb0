"""A record as Kafka gave it, and what it says of itself before anyone opens it."""

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
    """Read a record's label: from its headers, and only where they do not tell from its value.

    :raises InvalidEnvelope: neither says which event this is
    """
    return _label_in_headers(record.headers) or identity_in(decode(record.value))


def identity_in(envelope: Envelope) -> EventIdentity:
    """Return the label that belongs on an event."""
    return EventIdentity(envelope.subject, envelope.sequence, envelope.id, envelope.type)


def open_record(record: Record, label: EventIdentity) -> Envelope:
    """Parse the value of a record.

    :raises InvalidEnvelope: it is no event, or another than its label says
    """
    envelope = decode(record.value)
    if identity_in(envelope) != label:
        raise InvalidEnvelope("headers: not those of the event in the value")
    return envelope


def _label_in_headers(headers: Sequence[tuple[str, bytes | None]]) -> EventIdentity | None:
    # Of two headers with one name, the first counts; one without a value says nothing.
    said = {name: value or b"" for name, value in reversed(headers)}
    if said.get("content-type") != CONTENT_TYPE.encode():
        return None
    sequence = said.get("sequence", b"")
    if not _TEN_DIGITS.fullmatch(sequence) or not int(sequence):
        return None
    try:
        event_id = UUID(said.get("id", b"").decode("ascii"))
        subject, type_ = said.get("subject", b"").decode(), said.get("type", b"").decode()
    except ValueError:
        return None
    if event_id.version != _UUID_VERSION:
        return None
    if not all(0 < len(text) <= _LONGEST_TEXT and text.isprintable() for text in (subject, type_)):
        return None
    return EventIdentity(subject, int(sequence), event_id, type_)
