"""Reads partitions whose fetch failed: each alone, tried some times, before it is given up.

A fetch of many partitions raises for one of them, and does not always tell for which. Each is then
read by raw fetches until it is known to be sound, so that what can't be read stops nothing else.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    BrokerNotAvailableError,
    CorrelationIdError,
    KafkaConnectionError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    NoBrokersAvailable,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    ReplicaNotAvailableError,
    RequestTimedOutError,
    StaleMetadata,
    UnknownTopicOrPartitionError,
)

from chassis.kafka.raw_fetch import RawFetch, raw_fetch

#: What a fetch raises while a broker is away or a partition changes its leader. By these types and
#: not by a base class: a batch that can't be decompressed raises an OSError too, and one whose CRC
#: is wrong a KafkaError.
WAITED_FOR: Final = frozenset(
    {
        BrokerNotAvailableError,
        CorrelationIdError,
        KafkaConnectionError,
        KafkaTimeoutError,
        LeaderNotAvailableError,
        NoBrokersAvailable,
        NodeNotReadyError,
        NotLeaderForPartitionError,
        ReplicaNotAvailableError,
        RequestTimedOutError,
        StaleMetadata,
        UnknownTopicOrPartitionError,
    }
)

_MOST_TRIES: Final = 5
_TRY_AGAIN_S: Final = 1.0
_LOOK_AGAIN_S: Final = 30.0
# About what the usual fetch takes of a partition.
_MOST_BYTES: Final = 256 * 1024


class CannotRead(Exception):
    """A partition can't be read at the offset that comes next; the message says why."""


class NoLongerHeld(Exception):
    """A partition does not hold the offset that comes next."""


@dataclass(slots=True)
class _Partition:
    tries: int = 0
    next_at: float = 0.0
    reason: str | None = None


class CarefulReading:
    """The partitions of one consumer that are read by raw fetches now."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}

    def __contains__(self, tp: TopicPartition) -> bool:
        return tp in self._partitions

    def start(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions by raw fetches, until each is known to be sound."""
        for tp in partitions:
            self._partitions.setdefault(tp, _Partition())

    def look_again(self, tp: TopicPartition) -> None:
        """Try a partition once more after a while: a broker may have been repaired."""
        at = time.monotonic() + _LOOK_AGAIN_S
        self._partitions[tp] = _Partition(_MOST_TRIES - 1, at)

    def next_at(self, tp: TopicPartition) -> float:
        """Return when a partition is tried next, by the monotonic clock; 0 where nothing failed."""
        partition = self._partitions.get(tp)
        return partition.next_at if partition is not None else 0.0

    def end(self, tp: TopicPartition) -> None:
        self._partitions.pop(tp, None)

    def clear(self) -> None:
        self._partitions.clear()

    def reason(self, tp: TopicPartition) -> str | None:
        """Return why the last try of a partition failed, or None when it did not."""
        partition = self._partitions.get(tp)
        return partition.reason if partition is not None else None

    async def read(
        self,
        client: AIOKafkaClient,
        tp: TopicPartition,
        offset: int,
        max_records: int | None = None,
    ) -> RawFetch | None:
        """Return what a partition holds from an offset on; None: it is to be tried later.

        A partition of which all has been read, or of which nothing was odd, is read as usual again.

        :raises CannotRead: it was tried often enough
        :raises NoLongerHeld: it does not hold the offset
        """
        partition = self._partitions[tp]
        if time.monotonic() < partition.next_at:
            return None
        reason = None
        try:
            fetched = await raw_fetch(
                client, tp, offset, max_bytes=_MOST_BYTES, max_records=max_records
            )
        except OffsetOutOfRangeError as error:
            raise NoLongerHeld from error
        except Exception as error:  # noqa: BLE001 - each is waited for, or stops this partition
            reason = type(error).__name__
            if type(error) not in WAITED_FOR:
                partition.tries += 1
        else:
            if fetched.end > offset or fetched.unreadable is None:
                if fetched.unreadable is None and fetched.is_plain:
                    self.end(tp)
                else:
                    self._partitions[tp] = _Partition()
                return fetched
            reason = fetched.unreadable.reason
            partition.tries += 1
        partition.reason = reason
        if partition.tries >= _MOST_TRIES:
            raise CannotRead(reason)
        partition.next_at = time.monotonic() + _TRY_AGAIN_S
        return None
