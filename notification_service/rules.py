"""Rules: which event is sent to which address, and with which text."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from chassis.persistence.transactor import Work
from chassis.telemetry import current_traceparent
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from contracts.users import UserSignedUpV1
from notification_service.deliveries import PlannedDeliveries, PlannedDelivery

E = TypeVar("E", bound=IntegrationEvent)

SLACK = "slack"


@dataclass(frozen=True, slots=True)
class Rule(Generic[E]):
    """Sends every ``event`` of a type to one address.

    :param name: must never change, since it identifies the delivery of an event
    :param text: makes the message, in plain text
    """

    name: str
    event: type[E]
    medium: str
    address: str
    text: Callable[[E], str]


def rules(*, slack_channel: str) -> tuple[Rule[Any], ...]:
    """Return all rules."""
    return (
        Rule(
            name="slack-growth-user-signed-up",
            event=UserSignedUpV1,
            medium=SLACK,
            address=slack_channel,
            text=lambda event: f"{event.username} signed up",
        ),
    )


class NotificationWork(Work, Protocol):
    @property
    def deliveries(self) -> PlannedDeliveries: ...


class PlanDeliveries:
    """Handles an event: plans one delivery for each of its rules; the worker sends it."""

    def __init__(
        self,
        rules_: Iterable[Rule[Any]],
        new_id: Callable[[], UUID],
        now: Callable[[], datetime],
    ) -> None:
        self._rules = tuple(rules_)
        self.events: frozenset[type[IntegrationEvent]] = frozenset(
            rule.event for rule in self._rules
        )
        self._new_id = new_id
        self._now = now

    async def __call__(
        self, work: NotificationWork, event: IntegrationEvent, envelope: Envelope
    ) -> None:
        for rule in self._rules:
            if isinstance(event, rule.event):
                work.deliveries.plan(
                    PlannedDelivery(
                        id=self._new_id(),
                        rule=rule.name,
                        event_id=envelope.id,
                        medium=rule.medium,
                        address=rule.address,
                        text=rule.text(event),
                        correlation_id=envelope.correlationid,
                        traceparent=current_traceparent(),
                        created_at=self._now(),
                    )
                )
