"""Releases parked events: in order, once, and by the code that handles live events.

A release locks the inbox of the subject, so live events of it wait, and are then parked behind what
is left. It continues until nothing is left.
"""

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import select

from chassis.consuming.dead_letters import CannotRelease, ParkReason
from chassis.consuming.inbox import lock_subject
from chassis.operations.acts import Act, Command, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import (
    NoSuchParkedEvent,
    OneParkedEvent,
    forks,
    locked_or_gone,
    of_subject,
    releasable,
    subscriber_of,
)
from chassis.operations.operator_log import Operator
from chassis.operations.slices import Release, ReleaseBody
from chassis.operations.terminal import Shown
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import parked
from contracts.events import Text
from contracts.operations import ParkedEventAppliedV1, ParkedEventReleasedV1


class NotFirst(CannotRelease):
    code = "not-first"


class Forked(CannotRelease):
    code = "forked"


class SubjectRelease(BaseModel):
    """The subject to handle the parked events of."""

    subscriber: Text
    topic: Text
    subject: Annotated[Text, Field(description="The aggregate's id.")]


async def release_one(
    runtime: AnyRuntime, event: OneParkedEvent, operator: Operator
) -> ReleaseBody:
    """Handle an event that is the first of its subject, or has no subject.

    :raises NoSuchParkedEvent: there is none under this id
    :raises NotFirst: another of its subject is before it
    :raises Forked: it belongs to another history; only ``apply`` handles it
    :raises TemporarilyUnavailable: something needed is unreachable; nothing was changed
    """
    like = await _find(runtime, event.parked_id)

    async def choose(connection: Connection, _most: int) -> Sequence[Row]:
        row = await locked_or_gone(connection, event.parked_id)
        if row is None:
            return []
        if row.subject is not None:
            await _check_first(connection, row)
        return [row]

    return await Release(runtime, operator, ParkedEventReleasedV1).run(choose, like)


async def apply(runtime: AnyRuntime, event: OneParkedEvent, operator: Operator) -> ReleaseBody:
    """Handle an event out of order, whatever is before it, forked or not.

    :raises NoSuchParkedEvent: there is none under this id
    :raises TemporarilyUnavailable: something needed is unreachable; nothing was changed
    """
    like = await _find(runtime, event.parked_id)

    async def choose(connection: Connection, _most: int) -> Sequence[Row]:
        row = await locked_or_gone(connection, event.parked_id)
        return [] if row is None else [row]

    return await Release(runtime, operator, ParkedEventAppliedV1).run(choose, like)


async def release_subject(
    runtime: AnyRuntime, of: SubjectRelease, operator: Operator
) -> ReleaseBody:
    """Handle all events of a subject, in order, up to one that fails or is forked.

    :raises NoSuchSubscriber: the service has none of this name
    :raises TemporarilyUnavailable: something needed is unreachable; what was released stays so
    """
    subscriber, topic, subject = of.subscriber, of.topic, of.subject
    subscriber_of(runtime, subscriber, topic)
    query = select(parked).where(of_subject(subscriber, topic, subject)).limit(1)
    async with runtime.database.connect() as connection:
        like = (await connection.execute(query)).one_or_none()
    if like is None:
        return ReleaseBody(released=0, left=0, stopped_at=None)

    async def choose(connection: Connection, most: int) -> Sequence[Row]:
        await lock_subject(connection, subscriber, topic, subject)
        rows = await connection.execute(releasable(subscriber, topic, subject).limit(most))
        return rows.all()

    return await Release(runtime, operator, ParkedEventReleasedV1).run(choose, like)


async def _find(runtime: AnyRuntime, id_: UUID) -> Row:
    async with runtime.database.connect() as connection:
        found = await connection.execute(select(parked).where(parked.c.id == id_))
        row = found.one_or_none()
    if row is None:
        raise NoSuchParkedEvent(id_)
    subscriber_of(runtime, row.subscriber, row.topic)
    return row


async def _check_first(connection: Connection, row: Row) -> None:
    """Check that an event is the first of its subject.

    :raises Forked: it is a fork, and waits for a decision
    :raises NotFirst: another is before it
    """
    if row.reason == ParkReason.FORKED:
        raise Forked("it belongs to another history of its subject: apply it, or discard it")
    key = (row.subscriber, row.topic, row.subject)
    first = (await connection.execute(releasable(*key).limit(1))).one_or_none()
    first = first or (await connection.execute(forks(*key).limit(1))).one()
    if first.id != row.id:
        raise NotFirst(f"{first.id} of the same subject is before it")


def shown(result: ReleaseBody) -> Shown:
    """Show what was released. An event that stays parked is a failure of the command."""
    text, stopped = f"{result.released} released, {result.left} left", result.stopped_at
    if stopped is not None:
        text += f"\nstopped at {stopped.id}: {stopped.error_code}: {stopped.error_message}"
    return Shown(text, failed=stopped is not None)


# The command line has one command for both of these.
RELEASE_SUBJECT: Final = Act(
    summary="Handle all of an aggregate, in order",
    description="Handle what is parked of a subject, up to one that fails or is forked.",
    input=SubjectRelease,
    output=ReleaseBody,
    run=release_subject,
    route=Route("POST", "/parked/release", "post_subject_release"),
)
RELEASE_ONE: Final = Act(
    summary="Handle it: the first of its aggregate",
    input=OneParkedEvent,
    output=ReleaseBody,
    run=release_one,
    route=Route("POST", "/parked/{parked_id}/release", "post_parked_release"),
)
APPLY: Final = Act(
    summary="Handle it all the same, out of order",
    description="Handle it whatever is before it, also one of another history (forked).",
    input=OneParkedEvent,
    output=ReleaseBody,
    run=apply,
    route=Route("POST", "/parked/{parked_id}/apply", "post_parked_apply"),
    command=Command(name="apply", show=shown),
)
