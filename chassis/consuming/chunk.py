"""A chunk of records of one partition, where it comes from, and its state while it is processed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from aiokafka import TopicPartition

from chassis.consuming.attempts import Attempt
from chassis.consuming.records import Record
from chassis.persistence.tables import UNKNOWN_TOPIC_ID

_STOP_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition: all that it holds from ``begin`` up to, not including, ``end``.

    Only chunks of a partition's current epoch count: a seek begins the next one. In one epoch the
    topic has one id, by which a chunk of a topic that was made again is told from the others.
    """

    topic: str
    partition: int
    begin: int
    end: int
    epoch: int
    records: Sequence[Record]
    topic_id: UUID = UNKNOWN_TOPIC_ID

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class ChunkSource(Protocol):
    """What a processor may ask of the transport that delivers its chunks."""

    def is_current(self, chunk: Chunk) -> bool:
        """Tell whether the partition is still ours and was not sought since the fetch."""
        ...

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        """Fetch from ``offset`` on, unless the chunk's epoch is over already."""
        ...

    async def leave(self, chunk: Chunk) -> None:
        """Fetch no more of the partition, and end the chunk's epoch, unless it is over already."""
        ...

    def begin(self, chunk: Chunk) -> None:
        """Note that the chunk is in progress: however long that takes, it is not lost."""
        ...

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        """Note up to where the chunk in progress is processed."""
        ...

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        """Note that it no longer is, and up to where all is processed, if that is known."""
        ...


class ChunkRefused(Exception):
    """A chunk that begins after what was processed: something between was not delivered."""

    def __init__(self, next_offset: int) -> None:
        super().__init__(next_offset)
        self.next_offset = next_offset


class ChunkInProgress:
    """A chunk while it is processed.

    :ivar attempts: that were counted for it and have not ended
    :ivar is_suspect: workers died that had begun it
    :ivar by_itself: it failed beside others, and shares no transaction any more
    :ivar event_by_event: it failed as a whole, and each event has a transaction of its own
    :ivar is_rehearsed: it is known that no more of its events park than may
    """

    def __init__(self, chunk: Chunk, source: ChunkSource) -> None:
        self.chunk = chunk
        self.attempts: list[Attempt] = []
        self.is_suspect = False
        self.by_itself = False
        self.event_by_event = False
        self.is_rehearsed = False
        self._source = source

    def is_ours(self) -> bool:
        """Tell whether to go on: not when the partition was revoked or sought, or we stop."""
        return self._source.is_current(self.chunk)

    def advance(self, next_offset: int) -> None:
        """Note that everything before this offset is processed."""
        self._source.advance(self.chunk, next_offset)

    async def leave(self) -> None:
        """Have no more of the partition fetched: this chunk is over, and so are those behind it."""
        await self._source.leave(self.chunk)

    async def pause(self, seconds: float) -> None:
        """Wait, no longer than the chunk is ours."""
        left = seconds
        while left > 0 and self.is_ours():
            step = min(left, _STOP_LOOK_S)
            await asyncio.sleep(step)
            left -= step
