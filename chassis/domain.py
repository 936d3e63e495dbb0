"""An aggregate that records what happened to it, and the errors a domain may raise."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID


class Kind(StrEnum):
    """What sort of refusal a domain error is; the edges decide how to say it."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    TOO_MANY = "too-many"
    UNAVAILABLE = "unavailable"


class DomainError(Exception):
    """A rule said no. ``code`` is stable and public, the message is for people.

    The message may reach a client, a log and a parked event: it holds no secret and no
    personal data.
    """

    kind: ClassVar[Kind]
    code: ClassVar[str]


@dataclass(frozen=True, slots=True)
class BrokenField:
    """One field of a command that breaks a rule: where, which rule, and what would be right."""

    field: str
    code: str
    message: str


class InvalidFields(DomainError):
    """A command with broken fields, every one of them named."""

    kind, code = Kind.INVALID, "invalid-fields"

    def __init__(self, *broken: BrokenField) -> None:
        super().__init__("; ".join(f"{each.field}: {each.message}" for each in broken))
        self.broken = broken


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """A fact in the service's own words; it never leaves the service."""

    occurred_at: datetime


class Aggregate:
    """State that changes as a whole, and the facts it has recorded since it was loaded.

    ``version`` is the row's version when it was loaded (0: never stored) and the optimistic
    lock; ``sequence`` is that of the last integration event published about it (0: none).
    """

    def __init__(self, id_: UUID, *, version: int = 0, sequence: int = 0) -> None:
        self.id = id_
        self.version = version
        self.sequence = sequence
        self._recorded: list[DomainEvent] = []

    def _record(self, event: DomainEvent) -> None:
        self._recorded.append(event)

    def take_events(self) -> Iterator[DomainEvent]:
        """Hand over what was recorded, oldest first, each fact once."""
        recorded, self._recorded = self._recorded, []
        yield from recorded
