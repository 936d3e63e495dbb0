"""What an operator decides about a consumer that has stopped, so that it continues."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from aiokafka import TopicPartition
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from chassis.consuming import holds
from chassis.consuming.holds import ContinueFrom, Decision, see_topic
from chassis.consuming.skip_batch import find_unreadable_batch, pass_over
from chassis.domain import DomainError, Kind
from chassis.kafka.partitions import partition_bounds
from chassis.operations import terminal
from chassis.operations.acts import Act, Command, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import subscriber_of
from chassis.operations.offsets import asking_kafka
from chassis.operations.operator_log import Operator, subject_of_partition
from chassis.operations.terminal import Shown
from chassis.persistence.database import Connection
from chassis.persistence.tables import park_allowances, progress
from contracts.events import Text
from contracts.operations import BatchSkippedV1, HoldEndedV1, ParkingAllowedV1

# Up to here each reader of JSON keeps a number exactly (RFC 8259, 6), API documents included.
LARGEST_OFFSET: Final = 2**53 - 1


class NotConsumed(DomainError):
    kind, code = Kind.NOT_FOUND, "not-consumed"

    def __init__(self, topic: str) -> None:
        super().__init__(f"no subscriber of this service has read {topic}")


class OfTopic(BaseModel):
    """The topic of the consumer that has stopped."""

    topic: Text


class AllowanceBody(BaseModel):
    """Up to where the events of one partition may park."""

    partition: int
    below_offset: int


class ParkingBody(BaseModel):
    """Where events may park, however many aggregates that stops; those published later may not."""

    allowed: Annotated[list[AllowanceBody], Field(description="Empty: nothing is left to read.")]


async def park_all(runtime: AnyRuntime, of: OfTopic, operator: Operator) -> ParkingBody:
    """Let the consumer of a topic park all that is published by now and that it can't handle.

    It continues within a second or two, in all processes of the service.

    :raises NotConsumed: the service does not read the topic
    :raises KafkaIsAway: it is not known what is published
    """
    async with runtime.database.connect() as connection:
        lagging = await _partitions_of(connection, of.topic)
    if not lagging:
        raise NotConsumed(of.topic)
    with asking_kafka(f"it is not known where {of.topic} ends"):
        bounds = await partition_bounds(runtime.settings, list(lagging))
    ends = {tp: end for tp, (_, end) in bounds.items() if end > lagging[tp]}
    if ends:
        async with runtime.act() as connection:
            await connection.execute(
                _ALLOW, [_columns(runtime, tp, end) for tp, end in ends.items()]
            )
            await runtime.operator_log.record(
                connection,
                {
                    subject_of_partition(tp): ParkingAllowedV1(
                        by=operator.by,
                        why=operator.why,
                        topic=tp.topic,
                        partition=tp.partition,
                        below_offset=end,
                    )
                    for tp, end in ends.items()
                },
            )
    allowed = [
        AllowanceBody(partition=tp.partition, below_offset=end) for tp, end in sorted(ends.items())
    ]
    return ParkingBody(allowed=allowed)


class OnePartition(OfTopic):
    """The partition that a consumer can't read on."""

    partition: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]


class OneRecord(OnePartition):
    """A record, by its place on the topic."""

    offset: Annotated[int, Field(strict=True, ge=0, le=LARGEST_OFFSET)]


class UnreadableBatch(OneRecord):
    """The batch that can't be read, by the offset at which readiness names it."""

    end: Annotated[
        int | None,
        Field(
            strict=True,
            ge=1,
            le=LARGEST_OFFSET,
            description="The next offset behind it; only where the batch does not tell.",
        ),
    ] = None


class SkippedBody(BaseModel):
    """The batch that is passed over, and by whom."""

    begin_offset: int
    end_offset: int
    raw_bytes: Annotated[int | None, Field(description="Kept of it; null: none could be had.")]
    subscribers: list[str]


async def skip_batch(
    runtime: AnyRuntime, unreadable: UnreadableBatch, operator: Operator
) -> SkippedBody:
    """Pass over a batch that can't be read. Its bytes are kept, where the broker gives them.

    :raises NotConsumed: the service does not read the topic, or has no such partition of it
    :raises BatchIsReadable: it can be read
    :raises BatchEndNotKnown: ``end`` is needed
    :raises WrongBatchEnd: ``end`` is not the batch's
    :raises NotAtBatch: no subscriber is at its offset
    :raises KafkaIsAway: Kafka does not answer
    """
    tp = TopicPartition(unreadable.topic, unreadable.partition)
    # Before Kafka is asked, which takes seconds for what it does not have.
    async with runtime.database.connect() as connection:
        if tp not in await _partitions_of(connection, tp.topic):
            raise NotConsumed(tp.topic)
    with asking_kafka("the batch can't be looked at"):
        batch = await find_unreadable_batch(runtime.settings, tp, unreadable.offset, unreadable.end)
    names = [each.name for each in runtime.subscribers if each.topic.name == tp.topic]
    async with runtime.act() as connection:
        skipped_by = await pass_over(connection, names, batch, runtime.now())
        act = BatchSkippedV1(
            by=operator.by,
            why=operator.why,
            topic=tp.topic,
            partition=tp.partition,
            begin_offset=batch.begin,
            end_offset=batch.end,
            raw_sha256=batch.raw_sha256,
        )
        await runtime.operator_log.record(connection, {subject_of_partition(tp): act})
    return SkippedBody(
        begin_offset=batch.begin,
        end_offset=batch.end,
        raw_bytes=None if batch.raw is None else len(batch.raw),
        subscribers=list(skipped_by),
    )


class HeldSubscriber(OnePartition):
    """The subscriber that is held, where, and where it continues."""

    subscriber: Text
    continue_from: ContinueFrom
    offset: Annotated[
        int | None,
        Field(
            strict=True, ge=0, le=LARGEST_OFFSET, description="Where `continue_from` is `offset`."
        ),
    ] = None


class EndedHoldBody(BaseModel):
    """Where the subscriber continues."""

    next_offset: Annotated[
        int | None, Field(description="Null: the topic has no such partition any more.")
    ]


async def end_hold(runtime: AnyRuntime, held: HeldSubscriber, operator: Operator) -> EndedHoldBody:
    """End the hold of a subscriber at a topic that was made again, cut, or lost its end.

    :raises NoSuchSubscriber: the service has none of this name
    :raises NotHeld: it is not held there
    :raises OffsetNotThere: the partition does not hold the offset
    :raises KafkaIsAway: Kafka does not answer, or has no such topic
    """
    subscriber_of(runtime, held.subscriber, held.topic)
    tp = TopicPartition(held.topic, held.partition)
    with asking_kafka(f"{held.topic} can't be looked at"):
        topic = await see_topic(runtime.settings, held.topic)
    decision = Decision(held.continue_from, held.offset)
    async with runtime.act() as connection:
        next_offset = await holds.end_hold(
            connection, held.subscriber, tp, decision, topic, runtime.now()
        )
        act = HoldEndedV1(
            by=operator.by,
            why=operator.why,
            topic=tp.topic,
            partition=tp.partition,
            subscriber=held.subscriber,
            next_offset=next_offset or 0,
        )
        await runtime.operator_log.record(connection, {subject_of_partition(tp): act})
    return EndedHoldBody(next_offset=next_offset)


async def _partitions_of(connection: Connection, topic: str) -> dict[TopicPartition, int]:
    """Return the lowest offset of all subscribers in each partition of a topic."""
    query = (
        select(progress.c.partition, func.min(progress.c.next_offset).label("lowest"))
        .where(progress.c.topic == topic)
        .group_by(progress.c.partition)
    )
    found = await connection.execute(query)
    return {TopicPartition(topic, row.partition): row.lowest for row in found}


def _columns(runtime: AnyRuntime, tp: TopicPartition, end: int) -> dict[str, Any]:
    return {
        "topic": tp.topic,
        "partition": tp.partition,
        "below_offset": end,
        "allowed_at": runtime.now(),
    }


_new: Final = insert(park_allowances)
_ALLOW: Final = _new.on_conflict_do_update(
    index_elements=list(park_allowances.primary_key),
    set_={
        "below_offset": func.greatest(park_allowances.c.below_offset, _new.excluded.below_offset),
        "allowed_at": _new.excluded.allowed_at,
    },
)


def _shown_skipped(skipped: SkippedBody) -> Shown:
    return terminal.fields(skipped)


def _shown_ended(ended: EndedHoldBody) -> Shown:
    if ended.next_offset is None:
        return Shown("the topic has no such partition any more")
    return Shown(f"continues at offset {ended.next_offset}")


def _shown(allowed: ParkingBody) -> Shown:
    if not allowed.allowed:
        return Shown("nothing is left to read")
    return Shown(terminal.table(allowed.allowed, ("partition", "below_offset")))


OPERATIONS: Final[Sequence[Act[Any, Any]]] = (
    Act(
        summary="Let a stopped consumer park what it can't handle",
        description="For a consumer that stopped at the dead-letter limit: it parks all that is"
        " published by now and that it can't handle, and continues.",
        input=OfTopic,
        output=ParkingBody,
        run=park_all,
        route=Route("POST", "/progress/park-all", "post_park_all"),
        command=Command(name="park-all", show=_shown, arguments=("topic",)),
    ),
    Act(
        summary="Pass over a batch that can't be read",
        description="For a partition that stopped at a batch with a wrong checksum, for example."
        " Its events are lost to this service; its bytes are kept, where the broker gives them.",
        input=UnreadableBatch,
        output=SkippedBody,
        run=skip_batch,
        route=Route("POST", "/progress/skip-batch", "post_skip_batch"),
        command=Command(
            name="skip-batch", show=_shown_skipped, arguments=("topic", "partition", "offset")
        ),
    ),
    Act(
        summary="Have a held subscriber continue",
        description="For a topic that was made again, was cut, or lost its end.",
        input=HeldSubscriber,
        output=EndedHoldBody,
        run=end_hold,
        route=Route("POST", "/progress/end-hold", "post_end_hold"),
        command=Command(
            name="end-hold", show=_shown_ended, arguments=("subscriber", "topic", "partition")
        ),
    ),
)
