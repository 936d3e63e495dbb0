"""A delivery: the message of one rule about one event, sent once as far as the chat allows.

pending ──claim──▶ sending ──▶ sent
   ▲                  │──────▶ failed    the chat refused it, and would refuse it again
   ├──────────────────┘          │       not sent, or perhaps sent: retried after a search
   └─────────────────────────────┘       an operator retries it
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class State(StrEnum):
    """The state of a delivery. One that stays in ``sending`` is claimed again after its lease."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDelivery:
    """A message to send: its text, its address, and the event and trace that it is about."""

    id: UUID
    rule: str
    event_id: UUID
    medium: str
    address: str
    text: str
    correlation_id: str
    traceparent: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that one worker may send until the lease ends.

    ``attempt`` counts the claims, and so identifies this one. ``unsure_since`` is the start of
    the first attempt that may have arrived without an answer; None: there is no such attempt.
    """

    id: UUID
    rule: str
    event_id: UUID
    address: str
    text: str
    correlation_id: str
    traceparent: str | None
    created_at: datetime
    attempt: int
    lease_until: datetime
    unsure_since: datetime | None


class PlannedDeliveries(Protocol):
    """Where an event handler stores what is to be sent, in its transaction."""

    def plan(self, delivery: PlannedDelivery) -> None:
        """Keep a delivery for the flush; a second one of the same event and rule is dropped."""


class DeliveryQueue(Protocol):
    """The deliveries of one medium, shared by all workers; each call is its own transaction.

    A method that changes a claimed delivery returns False, and changes nothing, if another worker
    has claimed the delivery since.
    """

    async def claim(
        self, now: datetime, *, lease_until: datetime, reclaim_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        """Claim due deliveries, the longest due first, except those of paused addresses.

        A claimed delivery that is not changed again can be claimed from ``reclaim_at`` on.
        """

    async def will_repeat(
        self, claimed: ClaimedDelivery, now: datetime, *, reclaim_at: datetime
    ) -> bool:
        """Mark, before it is sent again, that it may arrive twice; extend the claim."""

    async def sent(self, claimed: ClaimedDelivery, message_id: str, now: datetime) -> bool:
        """Mark it as sent, with its id in the chat."""

    async def failed(self, claimed: ClaimedDelivery, error: str, now: datetime) -> bool:
        """Mark it as failed: a retry would fail too."""

    async def put_back(
        self, claimed: ClaimedDelivery, error: str, now: datetime, *, at: datetime, unsure: bool
    ) -> bool:
        """Have it sent again at ``at``; ``unsure``: this attempt may have arrived."""

    async def pause(self, address: str, now: datetime, *, until: datetime) -> None:
        """Let no worker send to this address until then."""

    async def restart_waits(self, now: datetime) -> None:
        """Restart every wait that began after ``now``, since the clock was set back."""
