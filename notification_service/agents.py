"""The service consumes every topic that has an event with a rule, and accounts for the streams."""

from chassis.consuming.subscribers import EventSubscriber, Start
from contracts.topics import ACCOUNTS_ACCOUNT, TOPICS
from notification_service.rules import NotificationWork, PlanDeliveries
from notification_service.stream_events import LogForStreams, StreamWork


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


def stream_subscriber(log_for_streams: LogForStreams) -> EventSubscriber[StreamWork]:
    """Return the subscriber that stores what users' streams are sent."""
    return EventSubscriber(
        name="notification.log-for-streams",
        topic=ACCOUNTS_ACCOUNT,
        handlers=dict.fromkeys(log_for_streams.events, log_for_streams),
        # No browser waits for what happened before there were streams.
        starts=Start.NOW,
    )
