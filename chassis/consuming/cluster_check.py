"""Whether Kafka answers, has the topics a worker consumes, and has given each partition away."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from chassis.kafka.client import LastingAdminClient
from chassis.kafka.groups import group_assignments
from chassis.kafka.topic_ids import topic_ids
from chassis.kafka.topics import TopicState, config_violations, topic_states
from chassis.settings import ServiceSettings
from contracts.topics import Topic

log = structlog.get_logger(__name__)


class ClusterCheck:
    """Asks the cluster about the topics of one consumer group.

    :ivar lacking: what the cluster lacked when it was last asked; None: nothing
    :ivar unassigned: partitions that no worker of the group had then
    :ivar topic_ids: the ids of those topics that existed then; none if Kafka did not answer
    """

    def __init__(self, settings: ServiceSettings, group: str, topics: Sequence[Topic]) -> None:
        self.lacking: str | None = None
        self.unassigned: frozenset[TopicPartition] = frozenset()
        self.topic_ids: Mapping[str, UUID] = {}
        self._topics = topics
        self._group = group
        self._development = settings.environment == "development"
        self._admin = LastingAdminClient(settings)
        self._partitions: frozenset[TopicPartition] = frozenset()

    async def look(self) -> str | None:
        """Return why events of these topics can't be consumed; None: they can."""
        self.lacking = await self._find_lacking()
        return self.lacking

    async def _find_lacking(self) -> str | None:
        topics = self._topics
        self.topic_ids = {}
        try:
            states, self.topic_ids = await self._admin.ask(self._states_and_ids)
        except TopicAuthorizationFailedError as error:
            return f"forbidden to this user, who may not describe it: {error.args[0]}"
        except (KafkaError, OSError) as error:
            return f"Kafka does not answer: {type(error).__name__}"
        existing = {name: state for name, state in states.items() if state is not None}
        self._partitions = frozenset(
            TopicPartition(name, number)
            for name, state in existing.items()
            for number in range(state.partitions)
        )
        if len(existing) == len(states) and self._development:
            return None
        violations = [
            each for topic in topics for each in config_violations(topic, states[topic.name])
        ]
        return "; ".join(violations) or None

    async def _states_and_ids(
        self, client: AIOKafkaAdminClient
    ) -> tuple[Mapping[str, TopicState | None], Mapping[str, UUID]]:
        names = [topic.name for topic in self._topics]
        return await topic_states(client, names), await topic_ids(client, names)

    async def ask_topic_ids(self, names: Sequence[str]) -> Mapping[str, UUID]:
        """Return the id of each of these topics that exists now.

        :raises KafkaError: no broker answers
        :raises TimeoutError: no broker answers in time
        """
        return await self._admin.ask(lambda client: topic_ids(client, names))

    async def find_unassigned(self) -> Collection[TopicPartition]:
        """Return those partitions that no worker of the group had this time nor the last.

        A group that is just rebalancing has given none away, which is not looked at.
        """
        before = self.unassigned
        try:
            assignments = await self._admin.ask(
                lambda client: group_assignments(client, self._group)
            )
        except (KafkaError, OSError, ValueError) as error:
            log.info("group-not-described", error=type(error).__name__)
            return ()
        self.unassigned = (
            self._partitions.difference(*assignments.values()) if assignments else frozenset()
        )
        return before & self.unassigned

    async def close(self) -> None:
        await self._admin.close()


def names_of(partitions: Collection[TopicPartition]) -> str:
    """Return partitions as people write them."""
    return ", ".join(f"{tp.topic}[{tp.partition}]" for tp in sorted(partitions))
