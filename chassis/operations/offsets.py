"""How far the subscribers are, and their being paused, resumed and begun anew."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from pydantic import BaseModel, Field
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.consuming.subscribers import EventSubscriber, Subscriber
from chassis.domain import DomainError, Kind
from chassis.kafka.partitions import partition_bounds
from chassis.operations.acts import Operator, subject_of_subscriber
from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letter_rows import subscriber_of
from chassis.persistence import tables
from contracts.operations import (
    SubscriberAct,
    SubscriberPausedV1,
    SubscriberRestartedV1,
    SubscriberResumedV1,
)

_progress: Final = tables.progress

SubscriberKey = tuple[str, str]
"""A subscriber and its topic: one name may stand at several."""


class NotBegun(DomainError):
    kind, code = Kind.CONFLICT, "not-begun"


class NotRestartable(DomainError):
    kind, code = Kind.CONFLICT, "not-restartable"


class KafkaIsAway(DomainError):
    kind, code = Kind.UNAVAILABLE, "kafka-is-away"


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


class Progress:
    """The progress of one service's subscribers; each act is told, with who and why."""

    def __init__(self, operations: ServiceRuntime[Any, Any]) -> None:
        self._operations = operations
        self._known: Mapping[SubscriberKey, Subscriber[Any]] = {
            (each.name, each.topic.name): each for each in operations.subscribers
        }

    async def all(self) -> ProgressBody:
        """Return how far everyone is; where Kafka is away, without how far there is to go."""
        rows: dict[SubscriberKey, list[Row[Any]]] = defaultdict(list)
        async with self._operations.engine.connect() as connection:
            for row in await connection.execute(select(_progress).order_by(_progress.c.partition)):
                rows[row.subscriber, row.topic].append(row)
            parked = await _parked(connection)
        places = [_place_of(row) for name in self._known for row in rows[name]]
        trouble, ends = None, dict[TopicPartition, int]()
        try:
            bounds = await partition_bounds(self._operations.settings, places)
            ends = {tp: end for tp, (_, end) in bounds.items()}
        except (KafkaError, OSError) as error:
            trouble = f"Kafka does not answer: {type(error).__name__}"
        return ProgressBody(
            kafka=trouble,
            subscribers=[
                _body(each, rows[name], ends, parked.get(name, 0))
                for name, each in self._known.items()
            ],
        )

    async def pause(self, name: SubscriberKey, operator: Operator) -> None:
        """Give it no more events until it is resumed; those in hand are finished first.

        :raises NoSuchSubscriber: there is none
        :raises NotBegun: it was never run
        """
        await self._set_paused(name, SubscriberPausedV1, operator)

    async def resume(self, name: SubscriberKey, operator: Operator) -> None:
        """Have it go on where it was paused.

        :raises NoSuchSubscriber: there is none
        :raises NotBegun: it was never run
        """
        await self._set_paused(name, SubscriberResumedV1, operator)

    async def restart(self, name: SubscriberKey, operator: Operator) -> None:
        """Empty its state, and have it begin at the beginning of its topic.

        Chunks in hand are finished first, and what comes after is refused and read again from
        there: every chunk's transaction begins with a lock of its progress.

        :raises NoSuchSubscriber: there is none
        :raises NotRestartable: it does not say how its state is emptied
        :raises NotBegun: it was never run
        :raises KafkaIsAway: it does not say where the topic begins
        """
        subscriber = subscriber_of(self._operations, *name)
        if not isinstance(subscriber, EventSubscriber) or subscriber.empty_state is None:
            raise NotRestartable(
                f"{subscriber.name} can't begin anew: what it did stays done, and nothing says how"
                " to undo it"
            )
        first = await self._beginnings(name)
        async with self._operations.act() as connection:
            rows = await _lock(connection, name)
            # The inbox first, as whoever releases what is parked does.
            for table in (tables.inbox, tables.inbox_missing, tables.parked, tables.tries):
                await connection.execute(delete(table).where(*_of(table, name)))
            await subscriber.empty_state(connection)
            for row in rows:
                await connection.execute(
                    update(_progress)
                    .where(*_of(_progress, name), _progress.c.partition == row.partition)
                    .values(next_offset=first[_place_of(row)], updated_at=self._operations.now())
                )
            await self._tell(connection, name, SubscriberRestartedV1, operator)

    async def _set_paused(
        self, name: SubscriberKey, act: type[SubscriberAct], operator: Operator
    ) -> None:
        subscriber_of(self._operations, *name)
        pauses = act is SubscriberPausedV1
        async with self._operations.act() as connection:
            rows = await _lock(connection, name)
            if all((row.paused_at is not None) is pauses for row in rows):
                return  # asking twice is not a second fact
            now = self._operations.now() if pauses else None
            await connection.execute(
                update(_progress).where(*_of(_progress, name)).values(paused_at=now)
            )
            await self._tell(connection, name, act, operator)

    async def _beginnings(self, name: SubscriberKey) -> Mapping[TopicPartition, int]:
        async with self._operations.engine.connect() as connection:
            found = await connection.execute(select(_progress).where(*_of(_progress, name)))
            places = [_place_of(row) for row in found]
        try:
            bounds = await partition_bounds(self._operations.settings, places)
        except (KafkaError, OSError) as error:
            raise KafkaIsAway(
                f"where {name[1]} begins is not known: {type(error).__name__}"
            ) from error
        return {tp: first for tp, (first, _) in bounds.items()}

    async def _tell(
        self,
        connection: AsyncConnection,
        name: SubscriberKey,
        act: type[SubscriberAct],
        operator: Operator,
    ) -> None:
        subscriber, topic = name
        told = act(by=operator.by, why=operator.why, subscriber=subscriber, topic=topic)
        await self._operations.operator_log.record(connection, {subject_of_subscriber(*name): told})


async def _lock(connection: AsyncConnection, name: SubscriberKey) -> Sequence[Row[Any]]:
    """Lock all its progress, so that no chunk of it is in the middle.

    :raises NotBegun: there is none
    """
    found = await connection.execute(
        select(_progress)
        .where(*_of(_progress, name))
        .order_by(_progress.c.partition)
        .with_for_update()
    )
    rows = found.all()
    if not rows:
        raise NotBegun(f"{name[0]} has never run: it has no progress in {name[1]} yet")
    return rows


async def _parked(connection: AsyncConnection) -> Mapping[SubscriberKey, int]:
    found = await connection.execute(
        select(tables.parked.c.subscriber, tables.parked.c.topic, func.count()).group_by(
            tables.parked.c.subscriber, tables.parked.c.topic
        )
    )
    return {(subscriber, topic): count for subscriber, topic, count in found}


def _of(table: Any, name: SubscriberKey) -> Sequence[Any]:
    return table.c.subscriber == name[0], table.c.topic == name[1]


def _place_of(row: Row[Any]) -> TopicPartition:
    return TopicPartition(row.topic, row.partition)


def _body(
    subscriber: Subscriber[Any],
    rows: Sequence[Row[Any]],
    ends: Mapping[TopicPartition, int],
    parked: int,
) -> SubscriberBody:
    partitions = [_partition_body(row, ends.get(_place_of(row))) for row in rows]
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


def _partition_body(row: Row[Any], end: int | None) -> PartitionBody:
    return PartitionBody(
        partition=row.partition,
        next_offset=row.next_offset,
        end=end,
        lag=None if end is None else max(0, end - row.next_offset),
        updated_at=row.updated_at,
    )
