"""The ``progress`` table: the next offset of each subscriber in each partition.

It is in the service's own database, and moved in the transaction of the effects. It decides what
is handled; Kafka's committed offsets do not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aiokafka import TopicPartition
from sqlalchemy import bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.consuming.subscribers import Start, Subscriber
from chassis.persistence.tables import Moment, progress


class AllPaused(Exception):
    """An operator has paused every subscriber of a partition; its records wait."""


@dataclass(frozen=True, slots=True)
class SubscriberOffset:
    """The next offset of one subscriber in one partition: all before it is processed."""

    subscriber: str
    tp: TopicPartition
    next_offset: int
    paused: bool


def lowest(offsets: Iterable[SubscriberOffset]) -> dict[TopicPartition, int]:
    """Return the lowest next offset in each partition."""
    return {each.tp: each.next_offset for each in sorted(offsets, key=_next, reverse=True)}


def highest(offsets: Iterable[SubscriberOffset]) -> dict[TopicPartition, int]:
    """Return the highest next offset in each partition."""
    return {each.tp: each.next_offset for each in sorted(offsets, key=_next)}


def _next(offset: SubscriberOffset) -> int:
    return offset.next_offset


async def read_offsets(
    connection: AsyncConnection, subscribers: Sequence[str], topic: str, partition: int
) -> dict[str, int]:
    """Return the next offset of each subscriber that is not paused."""
    rows = await connection.execute(
        _READ_OFFSETS,
        {"subscribers": subscribers, "of_topic": topic, "of_partition": partition},
    )
    return {row.subscriber: row.next_offset for row in rows if row.paused_at is None}


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets of a partition from ``begin`` up to, not including, ``end``."""

    partition: int
    begin: int
    end: int


async def advance(
    connection: AsyncConnection,
    subscribers: Sequence[str],
    topic: str,
    ranges: Sequence[OffsetRange],
    now: datetime,
) -> dict[int, dict[str, int]]:
    """Lock the progress of some partitions, and move it over a range of each.

    Moved are those subscribers that have come to the begin of the range and not to its end, in
    the transaction of the effects; others stay where they are, and so do those that are paused.
    Attempts counted within the range are forgotten. One statement.

    Return for each partition the next offset, as it was, of each subscriber that is not paused.

    :raises AllPaused: in some partition there is none
    """
    rows = await connection.execute(
        _ADVANCE,
        {
            "subscribers": subscribers,
            "of_topic": topic,
            "partitions": [each.partition for each in ranges],
            "begins": [each.begin for each in ranges],
            "ends": [each.end for each in ranges],
            "at": now,
        },
    )
    before: dict[int, dict[str, int]] = {each.partition: {} for each in ranges}
    for row in rows:
        if row.paused_at is None:
            before[row.partition][row.subscriber] = row.next_offset
    if not all(before.values()):
        raise AllPaused
    return before


_READ_OFFSETS: Final = text("""
    SELECT subscriber, next_offset, paused_at FROM progress
    WHERE subscriber = ANY (CAST(:subscribers AS text[]))
      AND topic = :of_topic AND partition = :of_partition
""")
_ADVANCE: Final = text("""
    WITH locked AS (
        SELECT progress.subscriber, progress.partition, next_offset, paused_at, range.ends,
            paused_at IS NULL AND next_offset >= range.begins AND next_offset < range.ends AS moves
        FROM progress
        JOIN unnest(
            CAST(:partitions AS integer[]), CAST(:begins AS bigint[]), CAST(:ends AS bigint[])
        ) AS range (partition, begins, ends) ON range.partition = progress.partition
        WHERE subscriber = ANY (CAST(:subscribers AS text[])) AND topic = :of_topic
        ORDER BY progress.partition, subscriber
        FOR UPDATE OF progress
    ), moved AS (
        UPDATE progress SET next_offset = locked.ends, updated_at = :at
        FROM locked
        WHERE progress.subscriber = locked.subscriber AND progress.topic = :of_topic
          AND progress.partition = locked.partition AND locked.moves
        RETURNING progress.subscriber, progress.partition, locked.ends
    ), forgotten AS (
        DELETE FROM tries USING moved
        WHERE tries.subscriber IN ('', moved.subscriber) AND tries.topic = :of_topic
          AND tries.partition = moved.partition AND tries."offset" < moved.ends
    )
    SELECT subscriber, partition, next_offset, paused_at FROM locked
""").bindparams(bindparam("at", type_=Moment))


async def begin(
    connection: AsyncConnection,
    subscribers: Sequence[Subscriber[Any]],
    topic: str,
    bounds: Mapping[int, tuple[int, int]],
    now: Callable[[], datetime],
) -> Sequence[SubscriberOffset]:
    """Insert the rows that are missing, and return the offset of each subscriber in each partition.

    ``bounds`` are the first and the next offset of every partition of the topic, whichever worker
    reads it: a subscriber that starts now does so in all of them at once, and reads a partition
    that is added later from its beginning. One that is paused is paused there too.
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
) -> Sequence[SubscriberOffset]:
    """Return the offsets of these subscribers in all partitions where they have begun."""
    theirs = [(each.name, each.topic.name) for each in subscribers]
    found = await connection.execute(
        select(progress).where(tuple_(progress.c.subscriber, progress.c.topic).in_(theirs))
    )
    return [
        SubscriberOffset(
            row.subscriber,
            TopicPartition(row.topic, row.partition),
            row.next_offset,
            row.paused_at is not None,
        )
        for row in found
    ]
