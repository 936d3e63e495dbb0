"""Which subscribers of a topic are far behind the others, and are left to a replay.

One agent reads a partition for all subscribers of a service, from the lowest of them on. One that
begins at the start of a long topic, or begins again, would hold up the others until it has caught
up.
"""

from collections.abc import Collection, Iterable, Mapping

from aiokafka import TopicPartition

from chassis.consuming.chunk import Chunk, ChunkRefused
from chassis.consuming.offsets import SubscriberOffset


class FarBehind:
    """Decides it from the offsets of a partition's subscribers, and remembers it.

    :param events: a subscriber that is further behind the first of the others is far behind
    """

    def __init__(self, events: int) -> None:
        self.events = events
        self._left: dict[TopicPartition, frozenset[str]] = {}

    def at(self, tp: TopicPartition) -> frozenset[str]:
        """Return the subscribers that are left to a replay in a partition."""
        return self._left.get(tp, frozenset())

    def partitions(self) -> Collection[TopicPartition]:
        """Return the partitions in which there are any."""
        return list(self._left)

    def is_read(self, offset: SubscriberOffset) -> bool:
        """Tell whether the agent reads a partition for this subscriber."""
        return offset.moves and offset.subscriber not in self.at(offset.tp)

    def look(
        self, partitions: Collection[TopicPartition], offsets: Iterable[SubscriberOffset]
    ) -> None:
        """Decide for these partitions.

        Who is left to a replay stays so until it has caught up, is paused or held, or holds up
        nobody any more.

        :param offsets: of all subscribers in them, and maybe in others
        """
        moving: dict[TopicPartition, dict[str, int]] = {tp: {} for tp in partitions}
        for each in offsets:
            if each.moves and each.tp in moving:
                moving[each.tp][each.subscriber] = each.next_offset
        for tp, found in moving.items():
            left = self.at(tp).intersection(found)
            self._leave(tp, left if len(left) < len(found) else frozenset())
            self._others(tp, found)

    def at_chunk(self, chunk: Chunk, offsets: Mapping[str, int]) -> dict[str, int]:
        """Return the offsets of those that are to be given records of a chunk.

        :param offsets: of those that the chunk was read for, as they were before it
        :raises ChunkRefused: one that is not far behind has not come to the chunk's begin
        """
        lowest = min(offsets.values(), default=chunk.begin)
        if lowest < chunk.begin:
            lowest = min(self._others(chunk.tp, offsets).values(), default=chunk.begin)
        if lowest < chunk.begin:
            raise ChunkRefused(lowest)
        return {name: offset for name, offset in offsets.items() if offset >= chunk.begin}

    def forget(self, tp: TopicPartition, subscriber: str) -> None:
        """Leave a subscriber to the agent again: it has caught up, or is no longer read here."""
        self._leave(tp, self.at(tp) - {subscriber})

    def _others(self, tp: TopicPartition, offsets: Mapping[str, int]) -> dict[str, int]:
        """Leave to a replay who is far behind; return the offsets of the others."""
        left = self.at(tp)
        first = max((offset for name, offset in offsets.items() if name not in left), default=0)
        left |= {name for name, offset in offsets.items() if first - offset > self.events}
        self._leave(tp, left)
        return {name: offset for name, offset in offsets.items() if name not in left}

    def _leave(self, tp: TopicPartition, subscribers: frozenset[str]) -> None:
        if subscribers:
            self._left[tp] = subscribers
        else:
            self._left.pop(tp, None)
