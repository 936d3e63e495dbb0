"""How far each subscriber has come in each partition: the row that decides, in its own database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aiokafka import TopicPartition
from sqlalchemy import BigInteger, Row, bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.subscribers import Start, Subscriber
from chassis.tables import Moment, progress


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


async def read_places(
    connection: AsyncConnection, subscribers: Sequence[str], topic: str, partition: int
) -> dict[str, int]:
    """Return the next offset of each subscriber that is not paused."""
    rows = await connection.execute(
        _READ_PLACES,
        {"subscribers": subscribers, "of_topic": topic, "of_partition": partition},
    )
    return _places(rows)


async def advance(
    connection: AsyncConnection,
    subscribers: Sequence[str],
    topic: str,
    partition: int,
    begin: int,
    end: int,
    now: datetime,
) -> dict[str, int]:
    """Lock the rows of one partition, and say that from ``begin`` to before ``end`` all is done.

    That is said of those that have come to ``begin`` and not to ``end``, in the transaction that
    does it; others stay where they are, and so do those that are paused. What was tried of it is
    forgotten. One statement.

    Return the next offset, as it was, of each subscriber that is not paused.
    """
    rows = await connection.execute(
        _ADVANCE,
        {
            "subscribers": subscribers,
            "of_topic": topic,
            "of_partition": partition,
            "begins": begin,
            "ends": end,
            "at": now,
        },
    )
    return _places(rows)


def _places(rows: Iterable[Row[Any]]) -> dict[str, int]:
    return {row.subscriber: row.next_offset for row in rows if row.paused_at is None}


_READ_PLACES: Final = text("""
    SELECT subscriber, next_offset, paused_at FROM progress
    WHERE subscriber = ANY (CAST(:subscribers AS text[]))
      AND topic = :of_topic AND partition = :of_partition
""")
_ADVANCE: Final = text("""
    WITH locked AS (
        SELECT subscriber, next_offset, paused_at FROM progress
        WHERE subscriber = ANY (CAST(:subscribers AS text[]))
          AND topic = :of_topic AND partition = :of_partition
        ORDER BY subscriber
        FOR UPDATE
    ), moved AS (
        UPDATE progress SET next_offset = :ends, updated_at = :at
        FROM locked
        WHERE progress.subscriber = locked.subscriber
          AND progress.topic = :of_topic AND progress.partition = :of_partition
          AND locked.paused_at IS NULL
          AND locked.next_offset >= :begins AND locked.next_offset < :ends
        RETURNING progress.subscriber
    ), forgotten AS (
        DELETE FROM tries
        WHERE subscriber IN (SELECT subscriber FROM moved UNION ALL SELECT '')
          AND topic = :of_topic AND partition = :of_partition AND "offset" < :ends
          AND EXISTS (SELECT FROM moved)
    )
    SELECT subscriber, next_offset, paused_at FROM locked
""").bindparams(
    bindparam("ends", type_=BigInteger),
    bindparam("begins", type_=BigInteger),
    bindparam("at", type_=Moment),
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
