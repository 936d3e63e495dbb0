"""How far each subscriber has come in each partition: the row that decides, in its own database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import TopicPartition
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.subscribers import Start, Subscriber
from chassis.tables import progress


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one subscriber is in one partition: all before ``next_offset`` is done."""

    subscriber: str
    tp: TopicPartition
    next_offset: int
    paused: bool


def hindmost(standings: Iterable[Standing]) -> dict[TopicPartition, int]:
    """Return how far the last of these is in each partition."""
    return {each.tp: each.next_offset for each in sorted(standings, key=_offset_of, reverse=True)}


def foremost(standings: Iterable[Standing]) -> dict[TopicPartition, int]:
    """Return how far the first of these is in each partition."""
    return {each.tp: each.next_offset for each in sorted(standings, key=_offset_of)}


def _offset_of(standing: Standing) -> int:
    return standing.next_offset


async def lock(
    connection: AsyncConnection, subscribers: Iterable[str], topic: str, partition: int
) -> dict[str, int]:
    """Lock the rows of one partition until the transaction ends.

    Return the next offset of each subscriber that is not paused.
    """
    rows = await connection.execute(
        select(progress.c.subscriber, progress.c.next_offset, progress.c.paused_at)
        .where(
            progress.c.subscriber == func.any(list(subscribers)),
            progress.c.topic == topic,
            progress.c.partition == partition,
        )
        .order_by(progress.c.subscriber)
        .with_for_update()
    )
    return {row.subscriber: row.next_offset for row in rows if row.paused_at is None}


async def advance(
    connection: AsyncConnection,
    subscribers: Iterable[str],
    topic: str,
    partition: int,
    next_offset: int,
    now: datetime,
) -> None:
    """Say that everything before ``next_offset`` is done, in the transaction that did it."""
    await connection.execute(
        update(progress)
        .where(
            progress.c.subscriber == func.any(list(subscribers)),
            progress.c.topic == topic,
            progress.c.partition == partition,
        )
        .values(next_offset=next_offset, updated_at=now)
    )


async def begin(
    connection: AsyncConnection,
    subscribers: Sequence[Subscriber[Any]],
    topic: str,
    bounds: Mapping[int, tuple[int, int]],
    now: Callable[[], datetime],
) -> Sequence[Standing]:
    """Return how far each subscriber is in each partition; it begins where it was in none yet.

    ``bounds`` are the first and the next offset of every partition of the topic, whoever reads it:
    a subscriber that starts now starts so everywhere at once, and reads from its beginning a
    partition that is added later. One that is paused is paused there too.
    """
    names = [each.name for each in subscribers]
    mine = (progress.c.topic == topic) & (progress.c.subscriber == func.any(names))
    known = await connection.execute(
        select(progress.c.subscriber, func.max(progress.c.paused_at).label("paused_at"))
        .where(mine)
        .group_by(progress.c.subscriber)
    )
    run_before = {row.subscriber: row.paused_at for row in known}
    rows = [
        {
            "subscriber": each.name,
            "topic": topic,
            "partition": partition,
            "next_offset": following
            if each.starts is Start.NOW and each.name not in run_before
            else first,
            "updated_at": now(),
            "paused_at": run_before.get(each.name),
        }
        for each in subscribers
        for partition, (first, following) in sorted(bounds.items())
    ]
    if rows:
        await connection.execute(insert(progress).on_conflict_do_nothing(), rows)
    return await read(connection, subscribers)


async def read(
    connection: AsyncConnection, subscribers: Iterable[Subscriber[Any]]
) -> Sequence[Standing]:
    """Return how far these subscribers are, wherever they have begun."""
    theirs = [(each.name, each.topic.name) for each in subscribers]
    found = await connection.execute(
        select(progress).where(tuple_(progress.c.subscriber, progress.c.topic).in_(theirs))
    )
    return [
        Standing(
            row.subscriber,
            TopicPartition(row.topic, row.partition),
            row.next_offset,
            row.paused_at is not None,
        )
        for row in found
    ]
