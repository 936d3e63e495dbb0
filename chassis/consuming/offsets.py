"""The ``progress`` table: the next offset of each subscriber in each partition.

It is in the service's own database, and moved in the transaction of the effects. It decides what
is handled; Kafka's committed offsets do not. An offset is of one topic, which Kafka's id tells from
another one that is made under the same name.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import TopicPartition
from sqlalchemy import ARRAY, Text, Uuid, bindparam, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from chassis.consuming.subscribers import Start, Subscriber
from chassis.kafka.topic_ids import are_different
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import UNKNOWN_TOPIC_ID, Moment, progress


class AllPaused(Exception):
    """An operator has paused every subscriber of a partition; its records wait."""


class AllHeld(Exception):
    """Every subscriber of a partition is held, or its progress is of another topic."""


@dataclass(frozen=True, slots=True)
class SubscriberOffset:
    """The next offset of one subscriber in one partition: all before it is processed.

    :ivar topic_id: of the topic that it is an offset of
    :ivar held_because: why nothing is handled until an operator decides; None: it is
    """

    subscriber: str
    tp: TopicPartition
    next_offset: int
    paused: bool
    topic_id: UUID = UNKNOWN_TOPIC_ID
    held_because: str | None = None

    @property
    def moves(self) -> bool:
        """Whether it is neither paused nor held."""
        return not self.paused and self.held_because is None


def lowest(offsets: Iterable[SubscriberOffset]) -> dict[TopicPartition, int]:
    """Return the lowest next offset in each partition."""
    return {each.tp: each.next_offset for each in sorted(offsets, key=_next, reverse=True)}


def highest(offsets: Iterable[SubscriberOffset]) -> dict[TopicPartition, int]:
    """Return the highest next offset in each partition."""
    return {each.tp: each.next_offset for each in sorted(offsets, key=_next)}


def _next(offset: SubscriberOffset) -> int:
    return offset.next_offset


async def read_offsets(
    connection: Connection,
    subscribers: Sequence[str],
    topic: str,
    partition: int,
    topic_id: UUID = UNKNOWN_TOPIC_ID,
) -> dict[str, int]:
    """Return the next offset of each subscriber that may be given records of this topic.

    :raises AllPaused: there is none, and not because all are held
    :raises AllHeld: all are held, or at offsets of another topic
    """
    rows = await connection.execute(
        _READ_OFFSETS,
        {
            "subscribers": subscribers,
            "of_topic": topic,
            "of_partition": partition,
            "of_topic_id": topic_id,
        },
    )
    return _by_subscriber(rows.all())


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The offsets of a topic's partition from ``begin`` up to, not including, ``end``."""

    partition: int
    begin: int
    end: int
    topic_id: UUID = UNKNOWN_TOPIC_ID


async def advance(
    connection: Connection,
    subscribers: Sequence[str],
    topic: str,
    ranges: Sequence[OffsetRange],
    now: datetime,
    *,
    without: Collection[tuple[str, int]] = (),
) -> dict[int, dict[str, int]]:
    """Lock the progress of some partitions, and move it over a range of each.

    Moved are those subscribers that have come to the begin of the range and not to its end, in
    the transaction of the effects; others stay where they are, and so do those that are paused or
    held, or whose progress is of another topic than the range. Attempts counted within the range
    are forgotten. One statement.

    :param without: subscribers that are left out, each with the partition

    Return for each partition the next offset, as it was, of each subscriber that may move.

    :raises AllPaused: in some partition there is none, and not because all are held
    :raises AllHeld: in some partition all are held, or at offsets of another topic
    """
    moves = [
        (subscriber, each)
        for each in ranges
        for subscriber in subscribers
        if (subscriber, each.partition) not in without
    ]
    rows = await connection.execute(
        _ADVANCE,
        {
            "subscribers": [subscriber for subscriber, _ in moves],
            "of_topic": topic,
            "partitions": [each.partition for _, each in moves],
            "begins": [each.begin for _, each in moves],
            "ends": [each.end for _, each in moves],
            "topic_ids": [each.topic_id for _, each in moves],
            "at": now,
        },
    )
    found: dict[int, list[Row]] = {each.partition: [] for each in ranges}
    for row in rows:
        found[row.partition].append(row)
    return {partition: _by_subscriber(locked) for partition, locked in found.items()}


def _by_subscriber(rows: Sequence[Row]) -> dict[str, int]:
    """Return the offsets of those of one partition that may move.

    :raises AllPaused: there is none, and not because all are held
    :raises AllHeld: all are held, or at offsets of another topic
    """
    may_move = {
        row.subscriber: row.next_offset for row in rows if not row.held and row.paused_at is None
    }
    if not may_move:
        raise AllHeld if rows and all(row.held for row in rows) else AllPaused
    return may_move


# Held is also what has its progress in another topic. Where one of the two ids is not known,
# nothing shows that the topics differ.
_READ_OFFSETS: Final = text("""
    SELECT subscriber, next_offset, paused_at,
        held_because IS NOT NULL OR coalesce(
            nullif(topic_id, :unknown) <> nullif(CAST(:of_topic_id AS uuid), :unknown), false
        ) AS held
    FROM progress
    WHERE subscriber = ANY (CAST(:subscribers AS text[]))
      AND topic = :of_topic AND partition = :of_partition
""").bindparams(bindparam("unknown", UNKNOWN_TOPIC_ID, Uuid))
_ADVANCE: Final = text("""
    WITH locked AS (
        SELECT progress.subscriber, progress.partition, next_offset, paused_at,
            held_because IS NOT NULL OR coalesce(
                nullif(progress.topic_id, :unknown) <> nullif(range.topic_id, :unknown), false
            ) AS held,
            range.begins, range.ends
        FROM progress
        JOIN unnest(
            CAST(:subscribers AS text[]), CAST(:partitions AS integer[]),
            CAST(:begins AS bigint[]), CAST(:ends AS bigint[]), CAST(:topic_ids AS uuid[])
        ) AS range (subscriber, partition, begins, ends, topic_id)
            USING (subscriber, partition)
        WHERE topic = :of_topic
        ORDER BY progress.partition, progress.subscriber
        FOR UPDATE OF progress
    ), moved AS (
        UPDATE progress SET next_offset = locked.ends, updated_at = :at
        FROM locked
        WHERE progress.subscriber = locked.subscriber AND progress.topic = :of_topic
          AND progress.partition = locked.partition
          AND locked.paused_at IS NULL
          AND NOT locked.held
          AND locked.next_offset >= locked.begins
          AND locked.next_offset < locked.ends
        RETURNING progress.subscriber, progress.partition, locked.ends
    ), forgotten AS (
        DELETE FROM tries USING moved
        WHERE tries.subscriber IN ('', moved.subscriber) AND tries.topic = :of_topic
          AND tries.partition = moved.partition AND tries."offset" < moved.ends
    )
    SELECT subscriber, partition, next_offset, paused_at, held FROM locked
""").bindparams(bindparam("at", type_=Moment), bindparam("unknown", UNKNOWN_TOPIC_ID, Uuid))


async def begin(
    connection: Connection,
    subscribers: Sequence[Subscriber[Any]],
    topic: str,
    bounds: Mapping[int, tuple[int, int]],
    now: Callable[[], datetime],
    topic_id: UUID = UNKNOWN_TOPIC_ID,
) -> Sequence[SubscriberOffset]:
    """Insert the rows that are missing, and return the offset of each subscriber in each partition.

    ``bounds`` are the first and the next offset of every partition of the topic, whichever worker
    reads it: a subscriber that starts now does so in all of them at once, and reads a partition
    that is added later from its beginning. One that is paused is paused there too, and one whose
    progress is of another topic is held there too. Rows whose topic is not known are of this one.
    """
    names = [each.name for each in subscribers]
    mine = (progress.c.topic == topic) & (progress.c.subscriber == func.any(names))
    if topic_id != UNKNOWN_TOPIC_ID:
        await connection.execute(
            update(progress)
            .where(mine, progress.c.topic_id == UNKNOWN_TOPIC_ID)
            .values(topic_id=topic_id)
        )
    found = await connection.execute(select(progress).where(mine))
    run_before: dict[str, list[Row]] = defaultdict(list)
    for row in found:
        run_before[row.subscriber].append(row)
    rows = [
        _first_row(
            each, run_before[each.name], topic, topic_id, partition, bounds[partition], now()
        )
        for each in subscribers
        for partition in sorted(bounds)
    ]
    if rows:
        await connection.execute(insert(progress).on_conflict_do_nothing(), rows)
    return await read(connection, subscribers)


def _first_row(
    subscriber: Subscriber[Any],
    run_before: Sequence[Row],
    topic: str,
    topic_id: UUID,
    partition: int,
    bounds: tuple[int, int],
    now: datetime,
) -> dict[str, Any]:
    """Return a subscriber's row for a partition in which it has none."""
    first, following = bounds
    others = [row.topic_id for row in run_before if are_different(row.topic_id, topic_id)]
    return {
        "subscriber": subscriber.name,
        "topic": topic,
        "topic_id": topic_id,
        "partition": partition,
        "next_offset": following if subscriber.starts is Start.NOW and not run_before else first,
        "updated_at": now,
        "paused_at": max((row.paused_at for row in run_before if row.paused_at), default=None),
        # Where a topic was made again with more partitions, these wait for the operator too.
        "held_because": made_again(topic, others[0], topic_id) if others else None,
        "held_at": now if others else None,
    }


def made_again(topic: str, before: UUID, now: UUID) -> str:
    """Return why progress in a topic that was deleted and made again is held."""
    return f"{topic} was deleted and made again: its id was {before} and is {now}"


_of_read = (
    func.unnest(bindparam("subscribers", type_=ARRAY(Text)), bindparam("topics", type_=ARRAY(Text)))
    .table_valued("subscriber", "topic", name="given")
    .render_derived()
)
_READ: Final = select(progress).where(
    tuple_(progress.c.subscriber, progress.c.topic).in_(
        select(_of_read.c.subscriber, _of_read.c.topic)
    )
)


async def read(
    connection: Connection, subscribers: Iterable[Subscriber[Any]]
) -> Sequence[SubscriberOffset]:
    """Return the offsets of these subscribers in all partitions where they have begun."""
    theirs = list(subscribers)
    names = {
        "subscribers": [each.name for each in theirs],
        "topics": [each.topic.name for each in theirs],
    }
    found = await connection.execute(_READ, names)
    return [
        SubscriberOffset(
            row.subscriber,
            TopicPartition(row.topic, row.partition),
            row.next_offset,
            row.paused_at is not None,
            row.topic_id,
            row.held_because,
        )
        for row in found
    ]
