"""The events that a user's browsers are sent: which they are, and what is shown of them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol
from uuid import UUID

import iso4217

from chassis.persistence.transactor import Work
from contracts.accounts import (
    AccountClosedV1,
    AccountFrozenV1,
    AccountOpenedV1,
    AccountUnfrozenV1,
    HoldCapturedV1,
    HoldExpiredV1,
    HoldPlacedV1,
    HoldReleasedV1,
    TransactionCreatedV1,
    TransferReversedV1,
)
from contracts.envelope import Envelope

#: Each has a ``user_id``: only that user is sent it.
ShownEvent = (
    AccountOpenedV1
    | TransactionCreatedV1
    | TransferReversedV1
    | HoldPlacedV1
    | HoldCapturedV1
    | HoldReleasedV1
    | HoldExpiredV1
    | AccountFrozenV1
    | AccountUnfrozenV1
    | AccountClosedV1
)
#: Who the operator was, and their words, are for operators.
_OPERATORS: Final = {"by", "reason"}
AMOUNTS: Final = frozenset({"amount", "delta", "balance_after"})
"""The fields that are minor units of the currency in the event's ``currency``."""
_POSITION: Final = re.compile(r"([0-9]{1,16})\.([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a user's events: everything up to this number of this epoch was sent."""

    epoch: int
    number: int

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """Return the position that an event's id names, or None if it is none."""
        match = _POSITION.fullmatch(text)
        return None if match is None else cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """An event of one user; ``data`` is JSON on one line."""

    user_id: UUID
    event_id: UUID
    data: str
    stored_at: datetime


class StreamEvents(Protocol):
    """Where an event handler stores what browsers are sent, in its transaction."""

    def append(self, event: StreamEvent) -> None:
        """Keep an event for the flush, which gives it the user's next number."""


class StreamWork(Work, Protocol):
    @property
    def stream_events(self) -> StreamEvents: ...


class LogForStreams:
    """Handles an event: stores it for the streams of its user."""

    events: Final = ShownEvent.__args__

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    async def __call__(self, work: StreamWork, event: ShownEvent, envelope: Envelope) -> None:
        work.stream_events.append(
            StreamEvent(
                user_id=event.user_id,
                event_id=envelope.id,
                data=shown(event, envelope),
                stored_at=self._now(),
            )
        )


def shown(event: ShownEvent, envelope: Envelope) -> str:
    """Return what the user is sent of an event: its type, its time, and its fields.

    Amounts are decimal text, such as ``12.30``, as everywhere over HTTP.
    """
    head = envelope.model_dump(mode="json", include={"type", "time"})
    fields = event.model_dump(mode="json", exclude=_OPERATORS)
    for name in AMOUNTS & fields.keys():
        fields[name] = _decimal_text(fields[name], fields["currency"])
    # JSON escapes line ends within a text, so the whole is one line.
    return json.dumps(head | fields, separators=(",", ":"))


def _decimal_text(minor_units: int, code: str | None) -> str | None:
    """Return an amount as text; None: no currency known here says where its point stands."""
    try:
        decimals = iso4217.Currency(code).exponent
    except ValueError:
        return None
    return None if decimals is None else f"{Decimal(minor_units).scaleb(-decimals):f}"
