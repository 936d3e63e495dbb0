"""Releases all aggregates that one error stopped, each in order, once its cause is repaired."""

import time
from contextlib import suppress
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field
from sqlalchemy import Select, select

from chassis.consuming.dead_letters import ParkReason
from chassis.operations.acts import Act, Command, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import (
    NoSuchParkedEvent,
    OneParkedEvent,
    subscriber_of,
)
from chassis.operations.operator_log import Operator
from chassis.operations.release import SubjectRelease, release_one, release_subject
from chassis.operations.slices import ReleaseBody, StoppedAt
from chassis.operations.terminal import Shown
from chassis.persistence.database import Row
from chassis.persistence.tables import parked
from contracts.events import Text

# The gateway waits 8 s for a response, and the last aggregate may take 5 s of it.
_RELEASE_FOR_S: Final = 2.5
_FOUND_AT_ONCE: Final = 100


class OfError(BaseModel):
    """The error that stopped the aggregates."""

    subscriber: Text
    topic: Text
    error_code: Annotated[Text, Field(description="As `parked count` shows it.")]


class ReleasedBody(BaseModel):
    """How many aggregates were tried, and what of them was handled."""

    tried: int
    released: Annotated[int, Field(description="Events, with those that were parked behind.")]
    stopped: Annotated[int, Field(description="Aggregates of which an event stays parked.")]
    first_stopped_at: StoppedAt | None
    more: Annotated[bool, Field(description="True: the time was over; release again.")]


async def release_all(runtime: AnyRuntime, of: OfError, operator: Operator) -> ReleasedBody:
    """Handle all events of every aggregate that this error stopped, aggregate by aggregate.

    Forks are left: each of them needs a decision.

    :raises NoSuchSubscriber: the service has none of this name
    :raises TemporarilyUnavailable: something needed is unreachable; what was released stays so
    """
    subscriber_of(runtime, of.subscriber, of.topic)
    deadline = time.monotonic() + _RELEASE_FOR_S
    # An event that fails again is tried later than this, and so is found once only.
    query = _stopped_by(of).where(parked.c.last_tried_at < runtime.now())
    result = ReleasedBody(tried=0, released=0, stopped=0, first_stopped_at=None, more=False)
    while True:
        async with runtime.engine.connect() as connection:
            found = (await connection.execute(query)).all()
        if not found:
            return result
        for row in found:
            if time.monotonic() >= deadline:
                return result.model_copy(update={"more": True})
            result = _sum(result, await _release(runtime, row, operator))


def _stopped_by(of: OfError) -> Select[Any]:
    return (
        select(parked.c.id, parked.c.subscriber, parked.c.topic, parked.c.subject)
        .where(
            parked.c.subscriber == of.subscriber,
            parked.c.topic == of.topic,
            parked.c.error_code == of.error_code,
            parked.c.reason != ParkReason.FORKED,
        )
        .order_by(parked.c.last_tried_at, parked.c.id)
        .limit(_FOUND_AT_ONCE)
    )


async def _release(runtime: AnyRuntime, row: Row, operator: Operator) -> ReleaseBody:
    if row.subject is not None:
        subject = SubjectRelease(subscriber=row.subscriber, topic=row.topic, subject=row.subject)
        return await release_subject(runtime, subject, operator)
    with suppress(NoSuchParkedEvent):  # another operator was faster
        return await release_one(runtime, OneParkedEvent(parked_id=row.id), operator)
    return ReleaseBody(released=0, left=0, stopped_at=None)


def _sum(result: ReleasedBody, one: ReleaseBody) -> ReleasedBody:
    return ReleasedBody(
        tried=result.tried + 1,
        released=result.released + one.released,
        stopped=result.stopped + (one.stopped_at is not None),
        first_stopped_at=result.first_stopped_at or one.stopped_at,
        more=False,
    )


def _shown(result: ReleasedBody) -> Shown:
    text = f"{result.released} released, of {result.tried} aggregates"
    if result.first_stopped_at is not None:
        first = result.first_stopped_at
        text += f"\n{result.stopped} stopped, the first at {first.id}: {first.error_code}"
    if result.more:
        text += "\nmore are left: release again"
    return Shown(text, failed=result.stopped > 0)


RELEASE_ALL: Final = Act(
    summary="Handle all aggregates that one error stopped",
    description="When its cause is repaired: each aggregate in order, up to an event that fails.",
    input=OfError,
    output=ReleasedBody,
    run=release_all,
    route=Route("POST", "/parked/release-all", "post_release_all"),
    command=Command(name="release-all", show=_shown),
)
