"""How far the subscribers are, and how an operator pauses, resumes and restarts them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, func, select, update

from chassis.consuming.subscribers import EventSubscriber, Subscriber
from chassis.domain import DomainError, Kind
from chassis.kafka.partitions import partition_bounds
from chassis.operations import terminal
from chassis.operations.acts import Act, Command, NoInput, Query, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import subscriber_of
from chassis.operations.operator_log import Operator, subject_of_subscriber
from chassis.operations.terminal import Shown
from chassis.persistence import tables
from chassis.persistence.database import Connection, Row
from contracts.events import Text
from contracts.operations import (
    SubscriberAct,
    SubscriberPausedV1,
    SubscriberRestartedV1,
    SubscriberResumedV1,
)

_progress: Final = tables.progress


class NotBegun(DomainError):
    kind, code = Kind.CONFLICT, "not-begun"


class NotRestartable(DomainError):
    kind, code = Kind.CONFLICT, "not-restartable"


class KafkaIsAway(DomainError):
    kind, code = Kind.UNAVAILABLE, "kafka-is-away"


@contextmanager
def asking_kafka(unanswered: str) -> Iterator[None]:
    """Ask Kafka in the block.

    :param unanswered: what then is not known or can't be done
    :raises KafkaIsAway: it does not answer
    """
    try:
        yield
    except (KafkaError, OSError) as error:
        raise KafkaIsAway(f"{unanswered}: {type(error).__name__}") from error


# The topic is part of the key: subscribers to several topics may have one name.
class OfSubscriber(BaseModel):
    """A subscriber, and the topic that it reads."""

    model_config = ConfigDict(frozen=True)

    subscriber: Text
    topic: Text


class PartitionBody(BaseModel):
    """How far a subscriber is in one partition."""

    partition: int
    next_offset: Annotated[int, Field(description="Everything before it is done.")]
    end: Annotated[int | None, Field(description="Of the partition; null: Kafka is away.")]
    lag: Annotated[int | None, Field(description="Records published and not done.")]
    updated_at: datetime


class SubscriberBody(BaseModel):
    """How far a subscriber is, and how many events it has parked."""

    subscriber: str
    topic: str
    paused_since: datetime | None
    parked: int
    lag: Annotated[int | None, Field(description="In all its partitions; null: not known.")]
    restartable: bool
    partitions: Annotated[list[PartitionBody], Field(description="None: it was never run.")]


class ProgressBody(BaseModel):
    """How far all subscribers of the service are."""

    kafka: Annotated[str | None, Field(description="Why no lag is known; null: it is.")]
    subscribers: list[SubscriberBody]


async def show(runtime: AnyRuntime, _: NoInput) -> ProgressBody:
    """Return how far each subscriber is, and its lag unless Kafka is unreachable."""
    rows: dict[OfSubscriber, list[Row]] = defaultdict(list)
    async with runtime.database.connect() as connection:
        for row in await connection.execute(select(_progress).order_by(_progress.c.partition)):
            rows[OfSubscriber(subscriber=row.subscriber, topic=row.topic)].append(row)
        parked = await _parked(connection)
    subscribers = {
        OfSubscriber(subscriber=each.name, topic=each.topic.name): each
        for each in runtime.subscribers
    }
    partitions = [_partition_of(row) for of in subscribers for row in rows[of]]
    error_text, ends = None, dict[TopicPartition, int]()
    try:
        bounds = await partition_bounds(runtime.settings, partitions)
        ends = {tp: end for tp, (_, end) in bounds.items()}
    except (KafkaError, OSError) as error:
        error_text = f"Kafka does not answer: {type(error).__name__}"
    return ProgressBody(
        kafka=error_text,
        subscribers=[
            _body(each, rows[of], ends, parked.get(of, 0)) for of, each in subscribers.items()
        ],
    )


async def pause(runtime: AnyRuntime, of: OfSubscriber, operator: Operator) -> None:
    """Give a subscriber no more events until it is resumed; chunks in progress are finished first.

    :raises NoSuchSubscriber: there is none
    :raises NotBegun: it was never run
    """
    await _set_paused(runtime, of, SubscriberPausedV1, operator)


async def resume(runtime: AnyRuntime, of: OfSubscriber, operator: Operator) -> None:
    """Have a subscriber continue where it was paused.

    :raises NoSuchSubscriber: there is none
    :raises NotBegun: it was never run
    """
    await _set_paused(runtime, of, SubscriberResumedV1, operator)


async def restart(runtime: AnyRuntime, of: OfSubscriber, operator: Operator) -> None:
    """Empty a subscriber's state, and have it start again at the beginning of its topic.

    Chunks in progress are finished first. Those that were fetched before are refused, because
    every chunk's transaction begins with a lock of the progress that it expects.

    :raises NoSuchSubscriber: there is none
    :raises NotRestartable: its code does not define how its state is emptied
    :raises NotBegun: it was never run
    :raises KafkaIsAway: it is not known where the topic begins
    """
    subscriber = subscriber_of(runtime, of.subscriber, of.topic)
    if not isinstance(subscriber, EventSubscriber) or subscriber.empty_state is None:
        raise NotRestartable(
            f"{subscriber.name} can't be restarted: its code does not define how to undo what it"
            " did"
        )
    first = await _beginnings(runtime, of)
    async with runtime.act() as connection:
        rows = await _lock(connection, of)
        # The inbox first, as a release does.
        for table in (tables.inbox, tables.inbox_missing, tables.parked, tables.tries):
            await connection.execute(delete(table).where(*_of(table, of)))
        await subscriber.empty_state(connection)
        for row in rows:
            await connection.execute(
                update(_progress)
                .where(*_of(_progress, of), _progress.c.partition == row.partition)
                .values(next_offset=first[_partition_of(row)], updated_at=runtime.now())
            )
        await _record(runtime, connection, of, SubscriberRestartedV1, operator)


async def _set_paused(
    runtime: AnyRuntime, of: OfSubscriber, act: type[SubscriberAct], operator: Operator
) -> None:
    subscriber_of(runtime, of.subscriber, of.topic)
    pauses = act is SubscriberPausedV1
    async with runtime.act() as connection:
        rows = await _lock(connection, of)
        if all((row.paused_at is not None) is pauses for row in rows):
            return  # asking twice is not a second fact
        now = runtime.now() if pauses else None
        await connection.execute(update(_progress).where(*_of(_progress, of)).values(paused_at=now))
        await _record(runtime, connection, of, act, operator)


async def _beginnings(runtime: AnyRuntime, of: OfSubscriber) -> Mapping[TopicPartition, int]:
    async with runtime.database.connect() as connection:
        found = await connection.execute(select(_progress).where(*_of(_progress, of)))
        partitions = [_partition_of(row) for row in found]
    with asking_kafka(f"it is not known where {of.topic} begins"):
        bounds = await partition_bounds(runtime.settings, partitions)
    return {tp: first for tp, (first, _) in bounds.items()}


async def _record(
    runtime: AnyRuntime,
    connection: Connection,
    of: OfSubscriber,
    act: type[SubscriberAct],
    operator: Operator,
) -> None:
    event = act(by=operator.by, why=operator.why, subscriber=of.subscriber, topic=of.topic)
    await runtime.operator_log.record(
        connection, {subject_of_subscriber(of.subscriber, of.topic): event}
    )


async def _lock(connection: Connection, of: OfSubscriber) -> Sequence[Row]:
    """Lock all progress of a subscriber, so that none of its chunks is in progress.

    :raises NotBegun: there is none
    """
    found = await connection.execute(
        select(_progress)
        .where(*_of(_progress, of))
        .order_by(_progress.c.partition)
        .with_for_update()
    )
    rows = found.all()
    if not rows:
        raise NotBegun(f"{of.subscriber} has never run: it has no progress in {of.topic} yet")
    return rows


async def _parked(connection: Connection) -> Mapping[OfSubscriber, int]:
    found = await connection.execute(
        select(tables.parked.c.subscriber, tables.parked.c.topic, func.count()).group_by(
            tables.parked.c.subscriber, tables.parked.c.topic
        )
    )
    return {
        OfSubscriber(subscriber=subscriber, topic=topic): count
        for subscriber, topic, count in found
    }


def _of(table: Any, of: OfSubscriber) -> Sequence[Any]:
    return table.c.subscriber == of.subscriber, table.c.topic == of.topic


def _partition_of(row: Row) -> TopicPartition:
    return TopicPartition(row.topic, row.partition)


def _body(
    subscriber: Subscriber[Any],
    rows: Sequence[Row],
    ends: Mapping[TopicPartition, int],
    parked: int,
) -> SubscriberBody:
    partitions = [_partition_body(row, ends.get(_partition_of(row))) for row in rows]
    lags = [each.lag for each in partitions if each.lag is not None]
    return SubscriberBody(
        subscriber=subscriber.name,
        topic=subscriber.topic.name,
        paused_since=max((row.paused_at for row in rows if row.paused_at), default=None),
        parked=parked,
        lag=sum(lags) if lags else None,
        restartable=isinstance(subscriber, EventSubscriber) and subscriber.empty_state is not None,
        partitions=partitions,
    )


def _partition_body(row: Row, end: int | None) -> PartitionBody:
    return PartitionBody(
        partition=row.partition,
        next_offset=row.next_offset,
        end=end,
        lag=None if end is None else max(0, end - row.next_offset),
        updated_at=row.updated_at,
    )


_COLUMNS: Final = ("subscriber", "topic", "lag", "parked", "paused_since", "restartable")
_ARGUMENTS: Final = ("subscriber", "topic")


def _shown(found: ProgressBody) -> Shown:
    return Shown(terminal.table(found.subscribers, _COLUMNS), warning=found.kafka)


OPERATIONS: Final = (
    Query(
        summary="How far each subscriber is",
        input=NoInput,
        output=ProgressBody,
        run=show,
        route=Route("GET", "/progress", "get_progress"),
        of_people=False,
        command=Command(name="show", show=_shown),
    ),
    Act(
        summary="Give a subscriber no more events",
        description="Pause it in all partitions. Chunks in progress are finished first.",
        input=OfSubscriber,
        run=pause,
        route=Route("POST", "/progress/pause", "post_pause"),
        command=Command(name="pause", show=terminal.done("paused"), arguments=_ARGUMENTS),
    ),
    Act(
        summary="Have a subscriber continue where it was paused",
        input=OfSubscriber,
        run=resume,
        route=Route("POST", "/progress/resume", "post_resume"),
        command=Command(name="resume", show=terminal.done("resumed"), arguments=_ARGUMENTS),
    ),
    Act(
        summary="Have a subscriber start again at the beginning of its topic",
        description="Empty its state, and delete what it parked."
        "\n\nOnly for a subscriber that defines in code how its state is emptied.",
        input=OfSubscriber,
        run=restart,
        route=Route("POST", "/progress/restart", "post_restart"),
        command=Command(name="restart", show=terminal.done("restarted"), arguments=_ARGUMENTS),
    ),
)
