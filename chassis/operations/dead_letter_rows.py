"""The rows of parked events: how they are locked, and the order of those of one subject."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, and_, exists, or_, select

from chassis.consuming.dead_letters import ParkReason
from chassis.consuming.inbox import lock_subject
from chassis.consuming.subscribers import Subscriber
from chassis.domain import DomainError, Kind
from chassis.operations.context import AnyRuntime
from chassis.operations.operator_log import Operator
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import parked


class NoSuchParkedEvent(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-parked-event"

    def __init__(self, id_: UUID) -> None:
        super().__init__(f"no event is parked under the id {id_}")


class NoSuchSubscriber(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-subscriber"

    def __init__(self, name: str, topic: str) -> None:
        super().__init__(f"this service has no subscriber {name} to {topic}")


class OneParkedEvent(BaseModel):
    """A parked event, by its id."""

    parked_id: UUID


def subscriber_of(runtime: AnyRuntime, name: str, topic: str) -> Subscriber[Any]:
    """Return the subscriber that parked something.

    :raises NoSuchSubscriber: the service has it no longer, or never had it
    """
    for each in runtime.subscribers:
        if (each.name, each.topic.name) == (name, topic):
            return each
    raise NoSuchSubscriber(name, topic)


async def locked(
    connection: Connection, id_: UUID, runtime: AnyRuntime
) -> tuple[Row, Subscriber[Any]]:
    """Lock a parked event and the inbox of its subject; return the event and its subscriber.

    :raises NoSuchParkedEvent: there is none under this id
    :raises NoSuchSubscriber: the service has it no longer
    """
    row = await locked_row(connection, id_)
    return row, subscriber_of(runtime, row.subscriber, row.topic)


async def locked_row(connection: Connection, id_: UUID) -> Row:
    """Lock the inbox of a parked event's subject, and then the event; return it.

    So live events of the subject, and other operators, wait until the transaction ends.

    :raises NoSuchParkedEvent: there is none under this id
    """
    this = parked.c.id == id_
    found = (await connection.execute(select(parked).where(this))).one_or_none()
    if found is not None and found.subject is not None:
        await lock_subject(connection, found.subscriber, found.topic, found.subject)
    row = (await connection.execute(select(parked).where(this).with_for_update())).one_or_none()
    if row is None:
        raise NoSuchParkedEvent(id_)
    return row


async def locked_or_gone(connection: Connection, id_: UUID) -> Row | None:
    """Do as ``locked_row``, and return None if the event is parked no longer."""
    try:
        return await locked_row(connection, id_)
    except NoSuchParkedEvent:
        return None  # another operator was faster


def of_subject(subscriber: str, topic: str, subject: str) -> ColumnElement[bool]:
    """Return the condition for all parked events of a subject."""
    table = parked.c
    return and_(table.subscriber == subscriber, table.topic == topic, table.subject == subject)


def releasable(subscriber: str, topic: str, subject: str) -> Select[*tuple[Any, ...]]:
    """Select the events of a subject that a release may handle, in their order.

    The order is that of their sequences. It ends where a fork was parked: later events come from
    a publisher with another history, and wait until an operator has decided about the fork.
    """
    forked = parked.alias("forked")
    fork_before = exists().where(
        forked.c.subscriber == subscriber,
        forked.c.topic == topic,
        forked.c.subject == subject,
        forked.c.reason == ParkReason.FORKED,
        # Offsets of two partitions do not show which event was first.
        or_(forked.c.partition != parked.c.partition, forked.c.offset < parked.c.offset),
    )
    return (
        select(parked)
        .where(
            of_subject(subscriber, topic, subject),
            parked.c.reason != ParkReason.FORKED,
            ~fork_before,
        )
        .order_by(parked.c.sequence, parked.c.offset)
    )


def forks(subscriber: str, topic: str, subject: str) -> Select[*tuple[Any, ...]]:
    """Select the forked events of a subject, in the order of their offsets."""
    return (
        select(parked)
        .where(of_subject(subscriber, topic, subject), parked.c.reason == ParkReason.FORKED)
        .order_by(parked.c.partition, parked.c.offset)
    )


def details_of(row: Row, operator: Operator) -> dict[str, Any]:
    """Return the fields that every act on a parked event has."""
    return {
        "by": operator.by,
        "why": operator.why,
        "subscriber": row.subscriber,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "parked_subject": row.subject,
        "parked_event_id": row.event_id,
        "parked_type": row.type,
    }
