"""The rows of parked events: locked one way everywhere, and in the order of their subject."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.consuming.dead_letters import ParkReason
from chassis.consuming.inbox import lock_subject
from chassis.consuming.subscribers import Subscriber
from chassis.domain import DomainError, Kind
from chassis.operations.context import ServiceRuntime
from chassis.persistence.tables import parked


class NoSuchParkedEvent(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-parked-event"

    def __init__(self, id_: UUID) -> None:
        super().__init__(f"no event is parked under the id {id_}")


class NoSuchSubscriber(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-subscriber"

    def __init__(self, name: str, topic: str) -> None:
        super().__init__(f"this service has no subscriber {name} to {topic}")


def subscriber_of(operations: ServiceRuntime[Any, Any], name: str, topic: str) -> Subscriber[Any]:
    """Return the subscriber that parked something.

    :raises NoSuchSubscriber: the service has it no longer, or never had
    """
    for each in operations.subscribers:
        if (each.name, each.topic.name) == (name, topic):
            return each
    raise NoSuchSubscriber(name, topic)


async def locked(
    connection: AsyncConnection, id_: UUID, operations: ServiceRuntime[Any, Any]
) -> tuple[Row[Any], Subscriber[Any]]:
    """Lock a parked event and what its subscriber knows of its subject; return both.

    :raises NoSuchParkedEvent: there is none under this id
    :raises NoSuchSubscriber: the service has it no longer
    """
    row = await locked_row(connection, id_)
    return row, subscriber_of(operations, row.subscriber, row.topic)


async def locked_row(connection: AsyncConnection, id_: UUID) -> Row[Any]:
    """Lock a parked event, after all that is known of its subject; return it.

    So live events of the subject, and other operators, wait until we are done.

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


def of_subject(subscriber: str, topic: str, subject: str) -> ColumnElement[bool]:
    """Return what holds for all that is parked of a subject."""
    table = parked.c
    return and_(table.subscriber == subscriber, table.topic == topic, table.subject == subject)


def in_turn(subscriber: str, topic: str, subject: str) -> Select[*tuple[Any, ...]]:
    """Select what may be handled of a subject without anybody's decision, in its order.

    That is by number, as far as no fork came before: what came after one was written by a
    publisher with another history, and waits until an operator has decided about it.
    """
    forked = parked.alias("forked")
    fork_before = exists().where(
        forked.c.subscriber == subscriber,
        forked.c.topic == topic,
        forked.c.subject == subject,
        forked.c.reason == ParkReason.FORKED,
        # Offsets of two partitions tell nothing of what was first.
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
    """Select the forked events of a subject, as they came."""
    return (
        select(parked)
        .where(of_subject(subscriber, topic, subject), parked.c.reason == ParkReason.FORKED)
        .order_by(parked.c.partition, parked.c.offset)
    )
