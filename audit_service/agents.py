"""The service consumes every topic."""

from collections.abc import Iterable

from audit_service.records import SUBSCRIBER, AuditWork, keep
from chassis.consuming.subscribers import RecordSubscriber
from contracts.topics import Topic


def subscribers(topics: Iterable[Topic]) -> list[RecordSubscriber[AuditWork]]:
    """Return one subscriber for each topic; it records everything from the topic's beginning."""
    return [RecordSubscriber(name=SUBSCRIBER, topic=topic, keep=keep) for topic in topics]
