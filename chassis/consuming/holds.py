"""Holds: Kafka no longer has what progress says, and nothing is handled until an operator decides.

A topic may have been deleted and made again under its name, cut at its beginning, or have lost its
end. To read on at the stored offset would pass over events without notice. A hold is kept in
``progress``, because it may be all that is left to show it: a topic grows again.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError
from sqlalchemy import ColumnElement, Table, bindparam, delete, select, update

from chassis.consuming.attempts import CHUNK
from chassis.consuming.offsets import SubscriberOffset, made_again
from chassis.domain import DomainError, Kind
from chassis.kafka.client import KafkaSecurity, admin_client
from chassis.kafka.partitions import partition_bounds
from chassis.kafka.topic_ids import are_different, topic_ids
from chassis.kafka.topics import topic_states
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import Moment, park_allowances, parked, progress, tries
from chassis.settings import KafkaSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SeenTopic:
    """A topic as Kafka has it.

    :ivar bounds: the first and the next offset of each partition
    :ivar out_of_range: offsets that a fetch did not find, by partition
    """

    name: str
    topic_id: UUID
    bounds: Mapping[int, tuple[int, int]]
    out_of_range: Mapping[int, int] = field(default_factory=dict)

    def why_held(self, offset: SubscriberOffset) -> str | None:
        """Return why progress does not belong to this topic; None: it does."""
        number = offset.tp.partition
        if are_different(offset.topic_id, self.topic_id):
            return made_again(self.name, offset.topic_id, self.topic_id)
        if number not in self.bounds:
            return None
        first, end = self.bounds[number]
        if not first <= offset.next_offset <= end:
            return (
                f"{self.name}[{number}] holds {first} to {end},"
                f" and progress is at {offset.next_offset}"
            )
        missed = self.out_of_range.get(number)
        if missed is not None and missed >= first:
            # It has grown since then, and holds other records than those that were lost.
            return f"{self.name}[{number}] ended before {missed}, and now holds {first} to {end}"
        return None


async def see_topic(settings: KafkaSettings, name: str) -> SeenTopic:
    """Ask Kafka for a topic.

    :raises UnknownTopicOrPartitionError: there is none
    :raises KafkaError: no broker answers
    """
    async with admin_client(settings.kafka_bootstrap, KafkaSecurity.of(settings)) as client:
        state = (await topic_states(client, [name]))[name]
        ids = await topic_ids(client, [name])
    if state is None or name not in ids:
        raise UnknownTopicOrPartitionError(name)
    found = await partition_bounds(
        settings,
        [TopicPartition(name, number) for number in range(state.partitions)],
        # Progress may lie behind the begin of an open transaction.
        committed=False,
    )
    return SeenTopic(name, ids[name], {tp.partition: bounds for tp, bounds in found.items()})


async def hold(
    connection: Connection,
    topic: SeenTopic,
    offsets: Iterable[SubscriberOffset],
    now: datetime,
) -> bool:
    """Hold those offsets that do not belong to the topic; tell whether one was not held before.

    :param offsets: as they were before the topic was looked at. One that has moved since then is
        not compared with the topic's bounds, which have moved too
    """
    is_new = False
    # In the order in which chunks lock them.
    for each in sorted(offsets, key=lambda each: (each.tp.partition, each.subscriber)):
        reason = None if each.held_because else topic.why_held(each)
        if reason is None:
            continue
        other = are_different(each.topic_id, topic.topic_id)
        held = await connection.execute(
            _HOLD if other else _HOLD.where(progress.c.next_offset == each.next_offset),
            {
                "of_subscriber": each.subscriber,
                "of_topic": topic.name,
                "of_partition": each.tp.partition,
                "of_topic_id": each.topic_id,
                "reason": reason,
                "at": now,
            },
        )
        if held.rowcount:
            is_new = True
            held_at = {"partition": each.tp.partition, "subscriber": each.subscriber}
            if other:
                log.error("topic-made-again", topic=topic.name, reason=reason, **held_at)
            else:
                log.error("topic-shorter-than-progress", topic=topic.name, reason=reason, **held_at)
    return is_new


_HOLD: Final = (
    update(progress)
    .where(
        progress.c.subscriber == bindparam("of_subscriber"),
        progress.c.topic == bindparam("of_topic"),
        progress.c.partition == bindparam("of_partition"),
        progress.c.topic_id == bindparam("of_topic_id"),
        progress.c.held_because.is_(None),
    )
    .values(held_because=bindparam("reason"), held_at=bindparam("at", type_=Moment))
)


def describe(offsets: Iterable[SubscriberOffset]) -> Sequence[str]:
    """Return what is held and why, each reason once."""
    held: dict[tuple[str, str], list[SubscriberOffset]] = defaultdict(list)
    for each in offsets:
        if each.held_because is not None:
            held[each.tp.topic, each.held_because].append(each)
    return [
        f"{', '.join(sorted({each.subscriber for each in found}))} held at"
        f" {topic}{sorted({each.tp.partition for each in found})}: {reason}"
        for (topic, reason), found in sorted(held.items())
    ]


class NotHeld(DomainError):
    kind, code = Kind.CONFLICT, "not-held"


class OffsetNotThere(DomainError):
    kind, code = Kind.CONFLICT, "offset-not-there"


class ContinueFrom(StrEnum):
    """Where a subscriber continues when a hold ends."""

    BEGINNING = "beginning"
    OFFSET = "offset"
    END = "end"


@dataclass(frozen=True, slots=True)
class Decision:
    """What an operator decides about a hold; ``offset`` is needed for ``OFFSET`` alone."""

    continue_from: ContinueFrom
    offset: int | None = None

    def next_offset(self, first: int, end: int) -> int:
        """Return the offset that is read next, of a partition that has these bounds.

        :raises OffsetNotThere: it is not within them
        """
        chosen = {ContinueFrom.BEGINNING: first, ContinueFrom.END: end}.get(
            self.continue_from, self.offset
        )
        if chosen is None or not first <= chosen <= end:
            raise OffsetNotThere(f"the partition holds {first} to {end}, and not {chosen}")
        return chosen


async def end_hold(
    connection: Connection,
    subscriber: str,
    tp: TopicPartition,
    decision: Decision,
    topic: SeenTopic,
    now: datetime,
) -> int | None:
    """End a hold: progress is of this topic from now on, and where the operator decided.

    What was kept of places in the old log is parted from it: attempts and allowances to park are
    forgotten; events that are parked stay, and leave their places to those of the new log. The
    inbox stays too: it is about aggregates, wherever their events are.

    Return the next offset; None: the topic has no such partition any more, nor has progress.

    :param topic: as Kafka has it now. If it is yet another one by then, the next look holds again
    :raises NotHeld: it is not held
    :raises OffsetNotThere: the partition does not hold the offset
    """
    held = await _lock(connection, subscriber, tp)
    bounds = topic.bounds.get(tp.partition)
    next_offset = None if bounds is None else decision.next_offset(*bounds)
    await _forget_places(connection, held)
    mine = _of(progress, held)
    if next_offset is None:
        await connection.execute(delete(progress).where(*mine))
        return None
    await connection.execute(
        update(progress)
        .where(*mine)
        .values(
            next_offset=next_offset,
            topic_id=topic.topic_id,
            held_because=None,
            held_at=None,
            updated_at=now,
        )
    )
    # A topic may lose its end under the id that it had. Its row's id is no topic's.
    await connection.execute(
        update(parked)
        .where(
            *_of(parked, held),
            parked.c.topic_id == topic.topic_id,
            parked.c.offset >= next_offset,
        )
        .values(topic_id=parked.c.id)
    )
    return next_offset


async def _lock(connection: Connection, subscriber: str, tp: TopicPartition) -> Row:
    found = await connection.execute(
        select(progress)
        .where(
            progress.c.subscriber == subscriber,
            progress.c.topic == tp.topic,
            progress.c.partition == tp.partition,
            progress.c.held_because.is_not(None),
        )
        .with_for_update()
    )
    row = found.one_or_none()
    if row is None:
        raise NotHeld(f"{subscriber} is not held at {tp.topic}[{tp.partition}]")
    return row


async def _forget_places(connection: Connection, held: Row) -> None:
    await connection.execute(
        delete(tries).where(
            tries.c.subscriber.in_([CHUNK, held.subscriber]),
            tries.c.topic == held.topic,
            tries.c.partition == held.partition,
        )
    )
    await connection.execute(
        delete(park_allowances).where(
            park_allowances.c.topic == held.topic,
            park_allowances.c.partition == held.partition,
            park_allowances.c.allowed_at < held.held_at,
        )
    )


def _of(table: Table, held: Row) -> Sequence[ColumnElement[bool]]:
    return (
        table.c.subscriber == held.subscriber,
        table.c.topic == held.topic,
        table.c.partition == held.partition,
    )
