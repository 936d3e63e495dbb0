"""What an operator decides about a consumer that has stopped, so that it continues."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.domain import DomainError, Kind
from chassis.kafka.partitions import partition_bounds
from chassis.operations import terminal
from chassis.operations.acts import Act, Command, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.offsets import KafkaIsAway
from chassis.operations.operator_log import Operator, subject_of_partition
from chassis.operations.terminal import Shown
from chassis.persistence.tables import park_allowances, progress
from contracts.events import Text
from contracts.operations import ParkingAllowedV1


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
    async with runtime.engine.connect() as connection:
        lagging = await _partitions_of(connection, of.topic)
    if not lagging:
        raise NotConsumed(of.topic)
    try:
        bounds = await partition_bounds(runtime.settings, list(lagging))
    except (KafkaError, OSError) as error:
        raise KafkaIsAway(
            f"it is not known where {of.topic} ends: {type(error).__name__}"
        ) from error
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


async def _partitions_of(connection: AsyncConnection, topic: str) -> dict[TopicPartition, int]:
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
)
