"""What tests of any service may use: waiting for a condition, a clock to set, records to feed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chassis.consuming.chunk import Chunk
from chassis.consuming.records import Record
from contracts.envelope import EncodedEvent


async def eventually(
    holds: Callable[[], Awaitable[object]],
    *,
    within_s: float = 30,
    every_s: float = 0.05,
    despite: tuple[type[Exception], ...] = (),
) -> None:
    """Wait until it holds; an exception named in ``despite`` counts as a no.

    :raises TimeoutError: it did not hold in time
    """
    async with asyncio.timeout(within_s):
        while True:
            try:
                if await holds():
                    return
            except despite:
                pass
            await asyncio.sleep(every_s)


class Clock:
    """Tells the time that it was set to."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now

    def __call__(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let time pass, or go back."""
        self._now += by


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """A record as if Kafka had given it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @classmethod
    def of(cls, event: EncodedEvent, topic: str, offset: int, partition: int = 0) -> "FakeRecord":
        return cls(topic, partition, offset, event.key, event.payload, event.headers)


def chunk_of(records: Sequence[Record], *, begin: int | None = None, epoch: int = 1) -> Chunk:
    """Make the chunk that a fetch of these records would have made."""
    first, last = records[0], records[-1]
    return Chunk(
        first.topic,
        first.partition,
        first.offset if begin is None else begin,
        last.offset + 1,
        epoch,
        records,
    )


class FakeChunkSource:
    """A feed of chunks by hand: the partition stays ours until it is ``revoked``."""

    def __init__(self) -> None:
        self.revoked = False
        self.rewound_to: list[int] = []
        self.done: int | None = None

    def is_current(self, chunk: Chunk) -> bool:
        return not self.revoked

    async def rewind(self, chunk: Chunk, offset: int) -> None:
        self.rewound_to.append(offset)

    def begin(self, chunk: Chunk) -> None:
        self.done = None

    def advance(self, chunk: Chunk, next_offset: int) -> None:
        self.done = next_offset

    def end(self, chunk: Chunk, next_offset: int | None) -> None:
        self.done = next_offset
