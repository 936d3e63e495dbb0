"""Passes over a batch that can't be read: an operator's decision, when nothing else helps.

A batch is found with Kafka first, and passed over in one transaction then. The workers that have
given the partition up follow progress, and read on behind the batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from sqlalchemy import bindparam, insert, text

from chassis.consuming.careful_reading import WAITED_FOR
from chassis.correlation import new_id
from chassis.domain import DomainError, Kind
from chassis.kafka.partitions import ask_as_consumer
from chassis.kafka.raw_fetch import high_watermarks, raw_fetch
from chassis.persistence.database import Connection
from chassis.persistence.tables import Moment, skipped_batches
from chassis.settings import KafkaSettings

# The largest batch there is, and the begin of the one behind it, which shows where it ends.
_MOST_BYTES: Final = 4 << 20


class BatchIsReadable(DomainError):
    kind, code = Kind.CONFLICT, "batch-is-readable"


class BatchEndNotKnown(DomainError):
    kind, code = Kind.CONFLICT, "batch-end-not-known"


class WrongBatchEnd(DomainError):
    kind, code = Kind.CONFLICT, "wrong-batch-end"


class NotAtBatch(DomainError):
    kind, code = Kind.CONFLICT, "not-at-batch"


@dataclass(frozen=True, slots=True)
class FoundBatch:
    """A batch that can't be read, from ``begin`` up to, not including, ``end``.

    :ivar raw: its bytes; None: the broker does not give them
    """

    tp: TopicPartition
    begin: int
    end: int
    raw: bytes | None

    @property
    def raw_sha256(self) -> str | None:
        return None if self.raw is None else hashlib.sha256(self.raw).hexdigest()


async def find_unreadable_batch(
    settings: KafkaSettings, tp: TopicPartition, offset: int, end: int | None = None
) -> FoundBatch:
    """Return the batch at an offset, which can't be read.

    :param end: the next offset behind it, where neither the batch nor its successor tells
    :raises BatchIsReadable: there is none that can't be read
    :raises BatchEndNotKnown: an ``end`` is needed
    :raises WrongBatchEnd: the ``end`` is not the batch's, or not in the partition
    :raises KafkaError: the brokers did not answer within seconds
    """

    async def ask(consumer: AIOKafkaConsumer) -> tuple[bytes | None, int | None, int]:
        await consumer.beginning_offsets([tp])  # the consumer learns the leader by that
        client = consumer._client  # noqa: SLF001 - aiokafka offers no raw fetch
        try:
            fetched = await raw_fetch(client, tp, offset, max_bytes=_MOST_BYTES)
        except OffsetOutOfRangeError as error:
            raise NotAtBatch(f"{_name(tp)} does not hold offset {offset}") from error
        except KafkaError as error:
            if type(error) in WAITED_FOR:
                raise
            raw, known_end = None, None
        else:
            if fetched.unreadable is None or fetched.end > offset:
                raise BatchIsReadable(f"{_name(tp)} can be read at offset {offset}")
            raw, known_end = fetched.unreadable.raw, fetched.unreadable.end
        return raw, known_end, (await high_watermarks(client, [tp]))[tp]

    raw, known_end, highwater = await ask_as_consumer(settings, ask)
    if known_end is None and end is None:
        raise BatchEndNotKnown(
            f"where the batch at offset {offset} of {_name(tp)} ends can't be read either: name the"
            " next offset behind it"
        )
    if end is not None and known_end not in (None, end):
        raise WrongBatchEnd(f"the next offset behind the batch is {known_end}, and not {end}")
    chosen = known_end or end or 0
    if not offset < chosen <= highwater:
        raise WrongBatchEnd(f"{chosen} is not an offset between {offset} and {highwater}")
    return FoundBatch(tp, offset, chosen, raw)


async def pass_over(
    connection: Connection, subscribers: Sequence[str], batch: FoundBatch, now: datetime
) -> Sequence[str]:
    """Move the progress of all that stand at a batch behind it, and keep its bytes.

    Return their names. Others stay where they are, and come to the batch later, or are behind it.

    :raises NotAtBatch: no subscriber stands there
    """
    moved = await connection.execute(
        _MOVE,
        {
            "subscribers": list(subscribers),
            "of_topic": batch.tp.topic,
            "of_partition": batch.tp.partition,
            "begin": batch.begin,
            "end": batch.end,
            "at": now,
        },
    )
    rows = moved.all()
    if not rows:
        raise NotAtBatch(f"no subscriber is at offset {batch.begin} of {_name(batch.tp)}")
    await connection.execute(
        insert(skipped_batches),
        {
            "id": new_id(),
            "topic": batch.tp.topic,
            "topic_id": rows[0].topic_id,
            "partition": batch.tp.partition,
            "begin_offset": batch.begin,
            "end_offset": batch.end,
            "raw": batch.raw,
            "skipped_at": now,
        },
    )
    return sorted(row.subscriber for row in rows)


# Also of those that are paused, which would only stop here again; not of those that are held,
# whose progress is of another topic. In the order in which chunks lock them.
_MOVE: Final = text("""
    WITH standing AS (
        SELECT subscriber FROM progress
        WHERE subscriber = ANY (CAST(:subscribers AS text[])) AND topic = :of_topic
          AND partition = :of_partition AND held_because IS NULL
          AND next_offset >= :begin AND next_offset < :end
        ORDER BY subscriber
        FOR UPDATE
    )
    UPDATE progress SET next_offset = :end, updated_at = :at
    FROM standing
    WHERE progress.subscriber = standing.subscriber AND progress.topic = :of_topic
      AND progress.partition = :of_partition
    RETURNING progress.subscriber, progress.topic_id
""").bindparams(bindparam("at", type_=Moment))


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}[{tp.partition}]"
