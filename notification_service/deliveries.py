"""A delivery: one rule's answer to one event, sent once as far as the other side allows.

pending ──claim──▶ sending ──▶ sent
   ▲                  │──────▶ failed    the other side said no, and will again
   ├──────────────────┘          │       not sent, or nobody knows: later, after a look
   └─────────────────────────────┘       an operator has it retried
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class State(StrEnum):
    """How far a delivery has come. One left in ``sending`` is taken up when its lease is over."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDelivery:
    """What is to be sent where, because of which event, on which trail."""

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
    """A delivery that is ours to send until the lease ends.

    ``attempt`` counts the claims and so tells ours from a later one. ``unsure_since`` is when
    the first try began of which nobody knows whether it arrived; None where there is none.
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
    """Where the agent's handler leaves what is to be sent, in its transaction."""

    def plan(self, delivery: PlannedDelivery) -> None:
        """Keep a delivery for the flush; one of the same event and rule is there once."""


class DeliveryQueue(Protocol):
    """The deliveries of one medium, shared by all workers; each call is its own transaction.

    What says something of a claimed delivery returns False when the claim was lost meanwhile:
    then somebody else has it, and nothing was changed.
    """

    async def claim(
        self, now: datetime, *, lease_until: datetime, take_up_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        """Take what is due, the longest due first, and nothing for an address that is paused.

        A delivery whose worker says no more of it can be claimed again from ``take_up_at``.
        """

    async def will_repeat(
        self, claimed: ClaimedDelivery, now: datetime, *, take_up_at: datetime
    ) -> bool:
        """Mark that it may arrive twice, before it is sent again, and hold it for longer."""

    async def sent(self, claimed: ClaimedDelivery, message_id: str, now: datetime) -> bool:
        """Say that it has arrived, and under which id of the other side."""

    async def failed(self, claimed: ClaimedDelivery, error: str, now: datetime) -> bool:
        """Say that it won't ever arrive as things are."""

    async def put_back(
        self, claimed: ClaimedDelivery, error: str, now: datetime, *, at: datetime, unsure: bool
    ) -> bool:
        """Have it tried again at ``at``; ``unsure`` if this try may have arrived after all."""

    async def pause(self, address: str, now: datetime, *, until: datetime) -> None:
        """Have nobody send to this address until then."""

    async def restart_waits(self, now: datetime) -> None:
        """Begin every wait anew that began after ``now``: the clock was set back meanwhile."""
