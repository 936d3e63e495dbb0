"""The service consumes every topic that has an event with a rule."""

from chassis.consuming.subscribers import EventSubscriber
from contracts.topics import TOPICS
from notification_service.rules import NotificationWork, PlanDeliveries


def subscribers(plan: PlanDeliveries) -> list[EventSubscriber[NotificationWork]]:
    """Return one subscriber for each topic that has an event with a rule."""
    return [
        EventSubscriber(
            name="notification.plan-deliveries",
            topic=topic,
            handlers={event: plan for event in topic.events if event in plan.events},
        )
        for topic in TOPICS
        if plan.events.intersection(topic.events)
    ]
