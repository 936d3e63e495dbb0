"""Deliveries and events for the tests of the notification service."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from chassis.correlation import new_id
from contracts.envelope import Envelope, decode, encode
from contracts.events import IntegrationEvent
from contracts.users import UserSignedUpV1
from notification_service.deliveries import PlannedDelivery

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def planned(**changes: Any) -> PlannedDelivery:
    delivery = PlannedDelivery(
        id=new_id(),
        rule="slack-growth-user-signed-up",
        event_id=new_id(),
        medium="slack",
        address="growth",
        text="ada signed up",
        correlation_id="c-1",
        traceparent=None,
        created_at=NOW,
    )
    return replace(delivery, **changes)


def signed_up(username: str = "ada") -> tuple[UserSignedUpV1, Envelope]:
    user_id = uuid4()
    event = UserSignedUpV1(user_id=user_id, username=username)
    return event, enveloped(event, source="/users", subject=user_id)


def enveloped(event: IntegrationEvent, *, source: str, subject: UUID) -> Envelope:
    """Return the envelope in which a consumer receives an event."""
    encoded = encode(
        event,
        id=new_id(),
        source=source,
        subject=str(subject),
        time=NOW,
        sequence=1,
        correlationid="c-1",
    )
    return decode(encoded.payload)
