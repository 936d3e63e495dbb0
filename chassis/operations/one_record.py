"""Releases or discards what every subscriber of the service parked of one record.

With the same place at each service one decision covers a record, whoever parked it.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field
from sqlalchemy import select

from chassis.operations.acts import Act, Command, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import NoSuchParkedEvent, OneParkedEvent
from chassis.operations.dead_letters import discard
from chassis.operations.operator_log import Operator
from chassis.operations.release_together import released_of
from chassis.operations.slices import StoppedAt
from chassis.operations.stopped_consumers import OneRecord
from chassis.operations.terminal import Shown
from chassis.persistence.database import Row
from chassis.persistence.tables import parked


class ReleasedRecordBody(BaseModel):
    """What became of it here; nothing, where no subscriber had parked it."""

    subscribers: Annotated[list[str], Field(description="That had parked it.")]
    released: Annotated[int, Field(description="Events, with those of its subject.")]
    stopped_at: Annotated[
        list[StoppedAt], Field(description="What stays parked, of each subscriber one at most.")
    ]


class DiscardedRecordBody(BaseModel):
    """Which subscribers had parked it; none of them will handle it."""

    subscribers: list[str]


async def release_record(
    runtime: AnyRuntime, place: OneRecord, operator: Operator
) -> ReleasedRecordBody:
    """Handle all parked events of its subject, in order, for each subscriber that parked it.

    :raises NoSuchSubscriber: the service has one of them no longer
    :raises TemporarilyUnavailable: something needed is unreachable; what was released stays so
    """
    rows = await _parked_at(runtime, place)
    results = [await released_of(runtime, row, operator) for row in rows]
    return ReleasedRecordBody(
        subscribers=[row.subscriber for row in rows],
        released=sum(each.released for each in results),
        stopped_at=[each.stopped_at for each in results if each.stopped_at is not None],
    )


async def discard_record(
    runtime: AnyRuntime, place: OneRecord, operator: Operator
) -> DiscardedRecordBody:
    """Delete what each subscriber parked of it; events behind it stay parked."""
    discarded = []
    for row in await _parked_at(runtime, place):
        try:
            await discard(runtime, OneParkedEvent(parked_id=row.id), operator)
        except NoSuchParkedEvent:
            continue  # another operator was faster
        discarded.append(row.subscriber)
    return DiscardedRecordBody(subscribers=discarded)


async def _parked_at(runtime: AnyRuntime, place: OneRecord) -> list[Row]:
    query = (
        select(parked.c.id, parked.c.subscriber, parked.c.topic, parked.c.subject)
        .where(
            parked.c.topic == place.topic,
            parked.c.partition == place.partition,
            parked.c.offset == place.offset,
        )
        .order_by(parked.c.subscriber, parked.c.id)
    )
    async with runtime.database.connect() as connection:
        return list((await connection.execute(query)).all())


def _shown_released(done: ReleasedRecordBody) -> Shown:
    lines = [f"{done.released} released: {_listed(done.subscribers)}"]
    lines += [f"stopped at {each.id}: {each.error_code}" for each in done.stopped_at]
    return Shown("\n".join(lines), failed=bool(done.stopped_at))


def _shown_discarded(done: DiscardedRecordBody) -> Shown:
    return Shown(f"discarded: {_listed(done.subscribers)}")


def _listed(subscribers: list[str]) -> str:
    return ", ".join(subscribers) or "no subscriber here had parked it"


_ARGUMENTS: Final = ("topic", "partition", "offset")
OPERATIONS: Final[tuple[Act[Any, Any], ...]] = (
    Act(
        summary="Handle what was parked of one record, with its subject",
        description="For each subscriber of the service that parked it.",
        input=OneRecord,
        output=ReleasedRecordBody,
        run=release_record,
        route=Route("POST", "/parked/release-record", "post_release_record"),
        command=Command(name="release-record", show=_shown_released, arguments=_ARGUMENTS),
    ),
    Act(
        summary="Never handle what was parked of one record",
        description="For each subscriber of the service that parked it. Those behind stay parked.",
        input=OneRecord,
        output=DiscardedRecordBody,
        run=discard_record,
        route=Route("POST", "/parked/discard-record", "post_discard_record"),
        command=Command(name="discard-record", show=_shown_discarded, arguments=_ARGUMENTS),
    ),
)
