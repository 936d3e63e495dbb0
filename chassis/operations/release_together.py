"""Releases, or discards, all that one error stopped, and says before what a release would do."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field
from sqlalchemy import Select, func, or_, select

from chassis.consuming.dead_letters import CannotRelease, ParkReason
from chassis.operations.acts import Act, Command, Query, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import (
    NoSuchParkedEvent,
    OneParkedEvent,
    subscriber_of,
)
from chassis.operations.dead_letters import discard
from chassis.operations.dry_run import dry_run
from chassis.operations.operator_log import Operator
from chassis.operations.release import SubjectRelease, release_one, release_subject
from chassis.operations.slices import ReleaseBody, StoppedAt
from chassis.operations.terminal import Shown
from chassis.persistence.database import Row
from chassis.persistence.tables import parked
from contracts.envelope import Instant
from contracts.events import Text

# The gateway waits 8 s for a response, and the last aggregate may take 5 s of it.
_RELEASE_FOR_S: Final = 2.5
_FOUND_AT_ONCE: Final = 100
#: How many aggregates a preview looks at.
MOST_COUNTED: Final = 1_000


class OfError(BaseModel):
    """The error that stopped the aggregates."""

    subscriber: Text
    topic: Text
    error_code: Annotated[Text, Field(description="As `parked count` shows it.")]


class OfErrorBefore(OfError):
    """The error that stopped the aggregates, and which of them are still to be tried."""

    before: Annotated[
        Instant | None,
        Field(
            description="Only what was tried last before this moment; to go on, as the answer has"
            " it. Null: now."
        ),
    ] = None


class ReleasedBody(BaseModel):
    """How many aggregates were tried, and what of them was handled."""

    tried: int
    released: Annotated[int, Field(description="Events, with those that were parked behind.")]
    stopped: Annotated[int, Field(description="Aggregates of which an event stays parked.")]
    first_stopped_at: StoppedAt | None
    more: Annotated[bool, Field(description="True: the time was over; release again.")]
    before: Annotated[datetime, Field(description="With which to go on, where there is more.")]


class DiscardedBody(BaseModel):
    """How many events were discarded; those behind them stay parked."""

    discarded: int
    more: Annotated[bool, Field(description="True: the time was over; discard again.")]


class WouldStay(BaseModel):
    """How many aggregates would stay parked with an error."""

    error_code: str
    aggregates: int


class PreviewBody(BaseModel):
    """What one error stopped, and what a release of it would do now."""

    aggregates: Annotated[int, Field(description=f"Counted up to {MOST_COUNTED:,}.")]
    events: Annotated[int, Field(description="Of these, with those that are parked behind.")]
    tried: Annotated[int, Field(description="Of how many the first event was tried in the time.")]
    would_be_handled: int
    would_stay: list[WouldStay]


async def preview(runtime: AnyRuntime, of: OfError) -> PreviewBody:
    """Count what this error stopped, and handle the first events of it in rolled back transactions.

    :raises NoSuchSubscriber: the service has none of this name
    :raises TemporarilyUnavailable: something needed is unreachable
    """
    subscriber_of(runtime, of.subscriber, of.topic)
    deadline = time.monotonic() + _RELEASE_FOR_S
    async with runtime.database.connect() as connection:
        found = (await connection.execute(_stopped_by(of).limit(MOST_COUNTED))).all()
        events = await connection.scalar(_events_of(found, of)) if found else 0
    outcomes = Counter[str]()
    for row in found:
        if time.monotonic() >= deadline:
            break
        outcomes[await _tried_out(runtime, row)] += 1
    handled = outcomes.pop("", 0)
    return PreviewBody(
        aggregates=len(found),
        events=events,
        tried=handled + outcomes.total(),
        would_be_handled=handled,
        would_stay=[
            WouldStay(error_code=code, aggregates=number) for code, number in outcomes.most_common()
        ],
    )


async def _tried_out(runtime: AnyRuntime, row: Row) -> str:
    """Return the error with which an event would stay parked; empty: it would be handled."""
    try:
        outcome = await dry_run(runtime, OneParkedEvent(parked_id=row.id))
    except (CannotRelease, NoSuchParkedEvent) as refused:
        return refused.code
    return outcome.stays_parked.error_code if outcome.stays_parked is not None else ""


async def discard_all(runtime: AnyRuntime, of: OfError, operator: Operator) -> DiscardedBody:
    """Discard the events that this error stopped, each by an act of its own.

    Events that are parked behind them stay so, to be released in order.

    :raises NoSuchSubscriber: the service has none of this name
    """
    subscriber_of(runtime, of.subscriber, of.topic)
    deadline = time.monotonic() + _RELEASE_FOR_S
    discarded = 0
    async for row in _each(runtime, _stopped_by(of)):
        if time.monotonic() >= deadline:
            return DiscardedBody(discarded=discarded, more=True)
        with suppress(NoSuchParkedEvent):  # another operator was faster
            await discard(runtime, OneParkedEvent(parked_id=row.id), operator)
            discarded += 1
    return DiscardedBody(discarded=discarded, more=False)


async def release_all(runtime: AnyRuntime, of: OfErrorBefore, operator: Operator) -> ReleasedBody:
    """Handle all events of every aggregate that this error stopped, aggregate by aggregate.

    Forks are left: each of them needs a decision.

    :raises NoSuchSubscriber: the service has none of this name
    :raises TemporarilyUnavailable: something needed is unreachable; what was released stays so
    """
    subscriber_of(runtime, of.subscriber, of.topic)
    deadline = time.monotonic() + _RELEASE_FOR_S
    # An event that fails again is tried later than this, and so is found once only.
    before = of.before or runtime.now()
    result = ReleasedBody(
        tried=0, released=0, stopped=0, first_stopped_at=None, more=False, before=before
    )
    async for row in _each(runtime, _stopped_by(of).where(parked.c.last_tried_at < before)):
        if time.monotonic() >= deadline:
            return result.model_copy(update={"more": True})
        result = _sum(result, _of_one(await released_of(runtime, row, operator), before))
    return result


async def _each(runtime: AnyRuntime, query: Select[Any]) -> AsyncIterator[Row]:
    """Yield what a query finds, until it finds nothing; who takes a row has it found no more."""
    while True:
        async with runtime.database.connect() as connection:
            found = (await connection.execute(query.limit(_FOUND_AT_ONCE))).all()
        if not found:
            return
        for row in found:
            yield row


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
    )


def _events_of(found: Sequence[Row], of: OfError) -> Select[Any]:
    """Select the number of all parked events of these aggregates."""
    subjects = {row.subject for row in found if row.subject is not None}
    without = [row.id for row in found if row.subject is None]
    return (
        select(func.count())
        .select_from(parked)
        .where(
            parked.c.subscriber == of.subscriber,
            parked.c.topic == of.topic,
            or_(parked.c.subject.in_(sorted(subjects)), parked.c.id.in_(without)),
        )
    )


async def released_of(runtime: AnyRuntime, row: Row, operator: Operator) -> ReleaseBody:
    """Release the subject of a parked event, or that event alone where it has none."""
    if row.subject is not None:
        subject = SubjectRelease(subscriber=row.subscriber, topic=row.topic, subject=row.subject)
        return await release_subject(runtime, subject, operator)
    with suppress(NoSuchParkedEvent):  # another operator was faster
        return await release_one(runtime, OneParkedEvent(parked_id=row.id), operator)
    return ReleaseBody(released=0, left=0, stopped_at=None)


def _of_one(aggregate: ReleaseBody, before: datetime) -> ReleasedBody:
    return ReleasedBody(
        tried=1,
        released=aggregate.released,
        stopped=int(aggregate.stopped_at is not None),
        first_stopped_at=aggregate.stopped_at,
        more=False,
        before=before,
    )


def _sum(first: ReleasedBody, then: ReleasedBody) -> ReleasedBody:
    return ReleasedBody(
        tried=first.tried + then.tried,
        released=first.released + then.released,
        stopped=first.stopped + then.stopped,
        first_stopped_at=first.first_stopped_at or then.first_stopped_at,
        more=then.more,
        before=then.before,
    )


def _shown(result: ReleasedBody) -> Shown:
    text = f"{result.released} released, of {result.tried} aggregates"
    if result.first_stopped_at is not None:
        first = result.first_stopped_at
        text += f"\n{result.stopped} stopped, the first at {first.id}: {first.error_code}"
    return Shown(text, failed=result.stopped > 0)


def _shown_discarded(result: DiscardedBody) -> Shown:
    return Shown(f"{result.discarded} discarded")


def _shown_preview(found: PreviewBody) -> Shown:
    stay = [f"{each.aggregates} would stay: {each.error_code}" for each in found.would_stay]
    lines = [
        f"{found.aggregates} aggregates with {found.events} events",
        f"{found.would_be_handled} of {found.tried} that were tried would be handled",
        *stay,
    ]
    return Shown("\n".join(lines))


PREVIEW: Final = Query(
    summary="What a release of all that one error stopped would do",
    description="Nothing is changed. A limited number is tried, in a limited time.",
    input=OfError,
    output=PreviewBody,
    run=preview,
    route=Route("GET", "/parked/preview", "get_parked_preview"),
    of_people=False,
    command=Command(name="preview", show=_shown_preview),
)
RELEASE_ALL: Final = Act(
    summary="Handle all aggregates that one error stopped",
    description="When its cause is repaired: each aggregate in order, up to an event that fails.",
    input=OfErrorBefore,
    output=ReleasedBody,
    run=release_all,
    route=Route("POST", "/parked/release-all", "post_release_all"),
    command=Command(
        name="release-all",
        show=_shown,
        going_on=lambda result: {"before": result.before} if result.more else None,
        sum_of=_sum,
    ),
)
DISCARD_ALL: Final = Act(
    summary="Never handle the events that one error stopped",
    description="Those behind them stay parked, to be released in order: with the error"
    " `behind-parked`.",
    input=OfError,
    output=DiscardedBody,
    run=discard_all,
    route=Route("POST", "/parked/discard-all", "post_discard_all"),
    command=Command(
        name="discard-all",
        show=_shown_discarded,
        going_on=lambda result: {} if result.more else None,
        sum_of=lambda first, then: DiscardedBody(
            discarded=first.discarded + then.discarded, more=then.more
        ),
    ),
)
OPERATIONS: Final = (PREVIEW, RELEASE_ALL, DISCARD_ALL)
