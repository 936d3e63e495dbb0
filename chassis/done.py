"""How far each partition is done, and what was fetched beyond that and is in nobody's hands."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition

from chassis.handling import Chunk

# Looked at once a second, so that a lost last chunk is fetched again within 6 s.
TAIL_LOST_AFTER_S: Final = 4.0
STUCK_AFTER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next fetch of a partition begins; a seek makes a new epoch."""

    epoch: int
    next: int


class Done:
    """What is known of it in this process; what counts is ``progress``, in the database."""

    def __init__(self) -> None:
        self.places: dict[TopicPartition, int] = {}
        self._in_hand: dict[TopicPartition, int] = {}
        self._still: dict[TopicPartition, tuple[tuple[int, int], float]] = {}

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Begin with these partitions, done up to these offsets."""
        self.places = dict(offsets)

    def begin(self, chunk: Chunk) -> None:
        """Say that a chunk is being handled: however long that takes, it is not lost."""
        self._in_hand[chunk.tp] = chunk.epoch

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        """Say up to where the chunk in hand is done."""
        if self._in_hand.get(chunk.tp) == chunk.epoch:
            self.places[chunk.tp] = next_offset

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        """Say that it no longer is, and up to where all is done, if that is known."""
        # The next owner's chunk may have begun while this one was being cancelled.
        if self._in_hand.get(chunk.tp) == chunk.epoch:
            del self._in_hand[chunk.tp]
        if next_offset is not None:
            self.places[chunk.tp] = next_offset

    def behind(self, ends: Mapping[TopicPartition, int | None]) -> Mapping[TopicPartition, int]:
        """Return up to where each partition is done of which more is published."""
        return {
            tp: done
            for tp, done in self.places.items()
            if (end := ends.get(tp)) is not None and end > done
        }

    def lost(
        self, fetched: Mapping[TopicPartition, Place], now: float
    ) -> Mapping[TopicPartition, Place]:
        """Return where to fetch again, in whose epoch: nobody handles it, and nothing moves.

        A lost chunk in the middle is betrayed by its successor; the last one has none.
        """
        lost: dict[TopicPartition, Place] = {}
        for tp, place in fetched.items():
            done = self.places.get(tp, place.next)
            if place.next <= done or tp in self._in_hand:
                self._still.pop(tp, None)
                continue
            seen, since = self._still.get(tp, (None, now))
            if seen != (place.next, done):
                self._still[tp] = ((place.next, done), now)
            elif now - since >= TAIL_LOST_AFTER_S:
                del self._still[tp]
                lost[tp] = Place(place.epoch, done)
        return lost


class Standstill:
    """Partitions that do not move for long, although there is more."""

    def __init__(self) -> None:
        self._since: dict[TopicPartition, tuple[int, float]] = {}

    def look(self, behind: Mapping[TopicPartition, int], now: float) -> Collection[TopicPartition]:
        """Return those that have stood where they are for too long by now."""
        since = {tp: (place, now) for tp, place in behind.items()}
        since |= {tp: at for tp, at in self._since.items() if behind.get(tp) == at[0]}
        self._since = since
        return [tp for tp, (_, at) in since.items() if now - at >= STUCK_AFTER_S]

    def excuse(self) -> None:
        """Begin to count anew: something else is in the way."""
        self._since.clear()
