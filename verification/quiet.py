"""Waits until the system has come to rest: while it moves, no count is worth anything."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from contracts.topics import TOPICS
from verification.addresses import CannotVerify

_LOOK_EVERY_S: Final = 0.2
# What has not moved for so long stands still: it won't be done by waiting.
STANDS_STILL_AFTER_S: Final = 2.0

_CONSUMERS: Final = {topic.name: topic.consumers for topic in TOPICS}


@dataclass(frozen=True, slots=True)
class Look:
    """How far everything had come at a moment. Two that are equal: nothing happened between."""

    ends: Mapping[tuple[str, int], int]
    """The offset after the last record of each partition of each topic."""
    progress: Mapping[tuple[str, str, int], int]
    """The next offset of each subscriber in each partition of each topic."""
    outboxes: Mapping[str, tuple[int, int]]
    """How many rows each service has on their way, and the last position among them."""
    open_deliveries: int

    @property
    def undone(self) -> str:
        """What is still to be done, in words; empty at rest."""
        unpublished = sum(count for count, _ in self.outboxes.values())
        unread = sum(
            max(0, self.ends[topic, partition] - at)
            for (_, topic, partition), at in self.progress.items()
            if (topic, partition) in self.ends
        )
        # One that has not begun yet has no row to say so.
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
        }
        return ", ".join(f"{count:,} {what}" for what, count in found.items() if count)


async def at_rest(look: Callable[[], Awaitable[Look]], deadline: float) -> Look:
    """Look until nothing is left to do, or until ``deadline`` if what is left does not move.

    :raises CannotVerify: at the deadline (of ``time.monotonic``) things still move
    """
    last, since = await look(), time.monotonic()
    while last.undone:
        now = time.monotonic()
        if now > deadline and now - since > STANDS_STILL_AFTER_S:
            return last
        await asyncio.sleep(_LOOK_EVERY_S)
        seen = await look()
        if seen != last:
            if now > deadline and seen.undone:
                raise CannotVerify(f"the system is not quiet ({seen.undone})")
            last, since = seen, time.monotonic()
    return last
