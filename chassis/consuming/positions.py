"""How far each partition is processed, and what was fetched beyond that and got lost."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aiokafka import TopicPartition

from chassis.consuming.chunk import Chunk
from chassis.persistence.tables import UNKNOWN_TOPIC_ID

# Looked at once a second, so that a lost last chunk is fetched again within 6 s.
TAIL_LOST_AFTER_S: Final = 4.0
STUCK_AFTER_S: Final = 30.0
# A transaction is usually open for milliseconds; Kafka ends one after 15 minutes at most.
OPEN_FOR_LONG_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Where to begin to read a partition, and the id of the topic in which that is."""

    offset: int
    topic_id: UUID = UNKNOWN_TOPIC_ID


FindPositions = Callable[
    [frozenset[TopicPartition]], Awaitable[Mapping[TopicPartition, StartPosition]]
]
"""Returns where to read each partition of a topic; a partition that it leaves out is not read."""


@dataclass(frozen=True, slots=True)
class FetchPosition:
    """Where the next fetch of a partition begins; a seek makes a new epoch."""

    epoch: int
    next: int
    topic_id: UUID = UNKNOWN_TOPIC_ID


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A partition that is no longer read, because what comes next can't be."""

    position: FetchPosition
    reason: str


class ProcessedPositions:
    """What is known of it in this process; what counts is ``progress``, in the database."""

    def __init__(self) -> None:
        self.offsets: dict[TopicPartition, int] = {}
        self._in_progress: dict[TopicPartition, int] = {}
        self._still: dict[TopicPartition, tuple[tuple[int, int], float]] = {}

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Begin with these partitions, processed up to these offsets."""
        self.offsets.update(offsets)

    def begin(self, chunk: Chunk) -> None:
        """Note that a chunk is in progress: however long that takes, it is not lost."""
        self._in_progress[chunk.tp] = chunk.epoch

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        """Note up to where the chunk in progress is processed."""
        if self._in_progress.get(chunk.tp) == chunk.epoch:
            self.offsets[chunk.tp] = next_offset

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        """Note that it no longer is, and up to where all is processed, if that is known."""
        # The next owner's chunk may have begun while this one was being cancelled.
        if self._in_progress.get(chunk.tp) == chunk.epoch:
            del self._in_progress[chunk.tp]
        if next_offset is not None:
            self.offsets[chunk.tp] = next_offset

    def lagging(self, ends: Mapping[TopicPartition, int | None]) -> Mapping[TopicPartition, int]:
        """Return up to where each partition is processed of which more is published."""
        return {
            tp: offset
            for tp, offset in self.offsets.items()
            if (end := ends.get(tp)) is not None and end > offset
        }

    def lost(
        self, fetched: Mapping[TopicPartition, FetchPosition], now: float
    ) -> Mapping[TopicPartition, FetchPosition]:
        """Return where to fetch again, in which epoch: no chunk is in progress, nothing moves.

        A lost chunk in the middle is detected when the next one does not start at the stored
        offset; the last one has no next.
        """
        lost: dict[TopicPartition, FetchPosition] = {}
        for tp, position in fetched.items():
            processed = self.offsets.get(tp, position.next)
            if position.next <= processed or tp in self._in_progress:
                self._still.pop(tp, None)
                continue
            seen, since = self._still.get(tp, (None, now))
            if seen != (position.next, processed):
                self._still[tp] = ((position.next, processed), now)
            elif now - since >= TAIL_LOST_AFTER_S:
                del self._still[tp]
                lost[tp] = FetchPosition(position.epoch, processed)
        return lost


class StallDetector:
    """Finds partitions that do not move for long, although there is more."""

    def __init__(self) -> None:
        self._since: dict[TopicPartition, tuple[int, float]] = {}

    def look(self, lagging: Mapping[TopicPartition, int], now: float) -> Collection[TopicPartition]:
        """Return those that have stood where they are for too long by now."""
        since = {tp: (offset, now) for tp, offset in lagging.items()}
        since |= {tp: at for tp, at in self._since.items() if lagging.get(tp) == at[0]}
        self._since = since
        return [tp for tp, (_, at) in since.items() if now - at >= STUCK_AFTER_S]

    def restart(self) -> None:
        """Begin to count again: something else is in the way."""
        self._since.clear()


class OpenTransactions:
    """Finds partitions in which a transaction of a producer has been open for long.

    Readers get none of its records, and none that come after it, until it ends. That is no stall.
    """

    def __init__(self) -> None:
        self._since: dict[TopicPartition, tuple[int | None, float]] = {}

    def look(
        self,
        ends: Mapping[TopicPartition, int | None],
        hidden: Mapping[TopicPartition, int],
        now: float,
    ) -> Mapping[TopicPartition, str]:
        """Return those partitions, each with how much is hidden in it.

        :param ends: where each partition ends for readers
        :param hidden: how many offsets each has after that
        """
        since = {tp: (ends.get(tp), now) for tp in hidden}
        since |= {
            tp: at for tp, at in self._since.items() if tp in hidden and ends.get(tp) == at[0]
        }
        self._since = since
        return {
            tp: f"an open transaction hides {hidden[tp]} records of {tp.topic}[{tp.partition}]"
            f" from offset {begin} on"
            for tp, (begin, at) in since.items()
            if now - at >= OPEN_FOR_LONG_S
        }
