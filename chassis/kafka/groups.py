"""Which member of a consumer group has which partitions."""

from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol


async def group_assignments(
    client: AIOKafkaAdminClient, group: str
) -> Mapping[str, frozenset[TopicPartition]]:
    """Return the partitions of each member of a group; empty while the group rebalances.

    :raises ValueError: a member does not use Kafka's consumer protocol
    """
    assignments: dict[str, frozenset[TopicPartition]] = {}
    for answer in await client.describe_consumer_groups([group]):
        for _error, _group, state, _type, _protocol, members, *_rights in answer.groups:
            if state != "Stable":
                return {}
            for member_id, *_about, encoded in members:
                # A member without any partition has no bytes to decode.
                topics = ConsumerProtocol.ASSIGNMENT.decode(encoded).assignment if encoded else ()
                assignments[member_id] = frozenset(
                    TopicPartition(name, number) for name, numbers in topics for number in numbers
                )
    return assignments
