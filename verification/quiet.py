"""Waits until the system is at rest: what is counted while it moves proves nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from contracts.topics import TOPICS
from verification.addresses import CannotVerify

_LOOK_EVERY_S: Final = 0.2
# Work that has not moved for so long stands still: waiting does not help.
STANDS_STILL_AFTER_S: Final = 2.0

_CONSUMERS: Final = {topic.name: topic.consumers for topic in TOPICS}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far everything had come at a moment. If two are equal, nothing happened in between."""

    ends: Mapping[tuple[str, int], int]
    """The offset after the last record of each partition of each topic."""
    progress: Mapping[tuple[str, str, int], int]
    """The next offset of each subscriber in each partition of each topic."""
    outboxes: Mapping[str, tuple[int, int]]
    """How many rows each service has to publish, and the highest position among them."""
    open_deliveries: int
    due_timers: int = 0
    unnumbered_records: int = 0

    @property
    def backlog(self) -> str:
        """The work that is left, as text; empty at rest."""
        unpublished = sum(count for count, _ in self.outboxes.values())
        unread = sum(
            max(0, self.ends[topic, partition] - next_offset)
            for (_, topic, partition), next_offset in self.progress.items()
            if (topic, partition) in self.ends
        )
        # A consumer that has not begun has no row in progress.
        begun = {
            (subscriber.partition(".")[0], topic, partition)
            for subscriber, topic, partition in self.progress
        }
        unread += sum(
            end
            for (topic, partition), end in self.ends.items()
            for service in _CONSUMERS.get(topic, ())
            if (service, topic, partition) not in begun
        )
        found = {
            "to publish": unpublished,
            "to handle": unread,
            "to deliver": self.open_deliveries,
            "timers to handle": self.due_timers,
            "audit records to number": self.unnumbered_records,
        }
        return ", ".join(f"{count:,} {what}" for what, count in found.items() if count)


async def wait_for_rest(
    take_snapshot: Callable[[], Awaitable[Snapshot]], deadline: float
) -> Snapshot:
    """Wait until no work is left, or until ``deadline`` if what is left does not move.

    :raises CannotVerify: at the deadline (of ``time.monotonic``) the system still moves
    """
    last, since = await take_snapshot(), time.monotonic()
    while last.backlog:
        now = time.monotonic()
        if now > deadline and now - since > STANDS_STILL_AFTER_S:
            return last
        await asyncio.sleep(_LOOK_EVERY_S)
        current = await take_snapshot()
        if current != last:
            if now > deadline and current.backlog:
                raise CannotVerify(f"the system is not quiet ({current.backlog})")
            last, since = current, time.monotonic()
    return last
