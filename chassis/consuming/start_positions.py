"""Where a worker begins to read each partition that it is given: where its subscribers are."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from chassis.consuming import holds, offsets
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.holds import SeenTopic
from chassis.consuming.offsets import SubscriberOffset, lowest
from chassis.consuming.positions import StartPosition
from chassis.consuming.processor import ChunkProcessor
from chassis.failpoints import failpoint
from chassis.persistence.database import Database, NoConnectionFree, is_away, is_conflict

_ASK_AGAIN_S: Final = 0.5

AskTopicIds = Callable[[Sequence[str]], Awaitable[Mapping[str, UUID]]]
"""Returns the id of each topic that exists."""


class KafkaTopics(Protocol):
    """What a worker's consumer knows of the partitions in Kafka."""

    @property
    def out_of_range(self) -> Mapping[TopicPartition, int]:
        """Return the offsets that a fetch did not find."""
        ...

    def forget_out_of_range(self, tp: TopicPartition) -> None:
        """Forget such an offset."""
        ...

    async def bounds(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Return the first and the next offset of each partition of a topic.

        :raises KafkaError: the brokers do not answer
        """
        ...


class StartPositions:
    """Finds out from the database, and from Kafka, where to read on; holds what does not fit.

    :ivar waiting: why that is not known now, by topic
    """

    def __init__(
        self,
        database: Database,
        processors: Mapping[str, ChunkProcessor[Any]],
        ask_topic_ids: AskTopicIds,
        now: Callable[[], datetime],
        far_behind: FarBehind,
    ) -> None:
        self.waiting: dict[str, str] = {}
        self._database = database
        self._processors = processors
        self._ask_topic_ids = ask_topic_ids
        self._now = now
        self._far_behind = far_behind

    async def find(
        self, partitions: frozenset[TopicPartition], kafka: KafkaTopics
    ) -> Mapping[TopicPartition, StartPosition]:
        """Return where to read partitions of one topic, as soon as Kafka and the database answer.

        One that is left out is not to be read: all its subscribers are held.
        """
        [topic] = {tp.topic for tp in partitions}
        try:
            while True:
                try:
                    return await self._find_once(topic, partitions, kafka)
                except Exception as error:
                    if not _is_waited_for(error):
                        raise
                    reason = f"where to read on is not known: {type(error).__name__}"
                    self.waiting[topic] = reason
                await asyncio.sleep(_ASK_AGAIN_S)
        finally:
            self.waiting.pop(topic, None)

    async def _find_once(
        self, topic: str, partitions: frozenset[TopicPartition], kafka: KafkaTopics
    ) -> Mapping[TopicPartition, StartPosition]:
        processor = self._processors[topic]
        topic_id = await self._id_of(topic)
        bounds = await kafka.bounds(topic)
        async with self._database.begin() as connection:
            begun = await offsets.begin(
                connection, processor.subscribers, topic, bounds, self._now, topic_id
            )
        missed = {
            tp.partition: offset for tp, offset in kafka.out_of_range.items() if tp.topic == topic
        }
        # Asked again: progress may have moved, and with it the end, since it was asked first.
        seen = SeenTopic(topic, topic_id, await kafka.bounds(topic), missed)
        if await self._id_of(topic) != topic_id:
            # The bounds may be those of the one or of the other.
            raise UnknownTopicOrPartitionError(topic)
        found = await self._hold(seen, begun)
        for partition in missed:
            kafka.forget_out_of_range(TopicPartition(topic, partition))
        await processor.read_allowances()
        self._far_behind.look(partitions, found)
        free = [each for each in found if each.held_because is None]
        # Where all are paused, the first that is resumed needs what is lowest of them.
        begin = lowest(free) | lowest(each for each in free if self._far_behind.is_read(each))
        return {tp: StartPosition(begin[tp], topic_id) for tp in partitions if tp in begin}

    async def _id_of(self, topic: str) -> UUID:
        ids = await self._ask_topic_ids([topic])
        if topic not in ids:
            raise UnknownTopicOrPartitionError(topic)
        return ids[topic]

    async def _hold(
        self, seen: SeenTopic, begun: Sequence[SubscriberOffset]
    ) -> Sequence[SubscriberOffset]:
        """Hold what does not fit; return all offsets as they are then."""
        async with self._database.begin() as connection:
            is_new = await holds.hold(connection, seen, begun, self._now())
            if is_new:
                await failpoint("hold.before-commit")
            found = await offsets.read(connection, self._processors[seen.name].subscribers)
        if is_new:
            await failpoint("hold.after-commit")
        return found


def _is_waited_for(error: Exception) -> bool:
    return isinstance(error, KafkaError | NoConnectionFree) or is_away(error) or is_conflict(error)
