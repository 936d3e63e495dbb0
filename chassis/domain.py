"""An aggregate that records its domain events, and the errors that a domain may raise."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID


class Kind(StrEnum):
    """What sort of refusal a domain error is; each edge maps it to its own form."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    TOO_MANY = "too-many"
    UNAVAILABLE = "unavailable"


class DomainError(Exception):
    """A rule refuses something. ``code`` is stable and public, the message is for people.

    The message may be sent to a client, logged, or stored with a parked event: it contains no
    secret and no personal data.
    """

    kind: ClassVar[Kind]
    code: ClassVar[str]


@dataclass(frozen=True, slots=True)
class BrokenField:
    """A field of a command that breaks a rule: its name, the rule's code, and what is allowed."""

    field: str
    code: str
    message: str


class InvalidFields(DomainError):
    """A command breaks the rules of some fields; every one of them is named."""

    kind, code = Kind.INVALID, "invalid-fields"

    def __init__(self, *broken: BrokenField) -> None:
        super().__init__("; ".join(f"{each.field}: {each.message}" for each in broken))
        self.broken = broken


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """Something that happened, in the service's own words; it never leaves the service."""

    occurred_at: datetime


class Aggregate:
    """State that changes as a whole, and the events it has recorded since it was loaded.

    ``version`` is the row's version when it was loaded (0: never stored), for the optimistic
    lock. ``sequence`` is the number of the last integration event about it (0: none).
    """

    def __init__(self, id_: UUID, *, version: int = 0, sequence: int = 0) -> None:
        self.id = id_
        self.version = version
        self.sequence = sequence
        self._recorded: list[DomainEvent] = []

    def _record(self, event: DomainEvent) -> None:
        self._recorded.append(event)

    def take_events(self) -> Iterator[DomainEvent]:
        """Return the recorded events, oldest first, and forget them."""
        recorded, self._recorded = self._recorded, []
        yield from recorded
