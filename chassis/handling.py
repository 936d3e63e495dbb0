"""A chunk while it is handled: whether it still is ours, and what was begun with it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiokafka import TopicPartition

from chassis.records import Record
from chassis.tries import Trial

_STOP_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition: all that it holds from ``begin`` up to, not including, ``end``.

    Only chunks of a partition's current epoch count: a seek begins the next one.
    """

    topic: str
    partition: int
    begin: int
    end: int
    epoch: int
    records: Sequence[Record]

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Feed(Protocol):
    """What a handler of chunks may ask of the transport that feeds it."""

    def is_current(self, chunk: Chunk) -> bool:
        """Tell whether the partition is still ours and was not sought since the fetch."""
        ...

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        """Fetch from ``offset`` on, unless the chunk's epoch is over already."""
        ...

    def begin(self, chunk: Chunk) -> None:
        """Say that the chunk is being handled: however long that takes, it is not lost."""
        ...

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        """Say up to where the chunk in hand is done."""
        ...

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        """Say that it no longer is, and up to where all is done, if that is known."""
        ...


class Refused(Exception):
    """A chunk that begins after what is done: something between them was not delivered."""

    def __init__(self, next_offset: int) -> None:
        super().__init__(next_offset)
        self.next_offset = next_offset


class Handling:
    """A chunk while it is handled, and the tries that were counted for it and have not ended."""

    def __init__(self, chunk: Chunk, feed: Feed) -> None:
        self.chunk = chunk
        self.begun: list[Trial] = []
        #: Whether workers died that had it in hand.
        self.is_suspect = False
        self._feed = feed

    def is_ours(self) -> bool:
        """Tell whether to go on: not when the partition was revoked or sought, or we stop."""
        return self._feed.is_current(self.chunk)

    def advance(self, next_offset: int) -> None:
        """Say up to where it is done."""
        self._feed.advance(self.chunk, next_offset)

    async def pause(self, seconds: float) -> None:
        """Wait, no longer than the chunk is ours."""
        left = seconds
        while left > 0 and self.is_ours():
            step = min(left, _STOP_LOOK_S)
            await asyncio.sleep(step)
            left -= step
