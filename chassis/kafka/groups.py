"""Which member of a consumer group reads which partitions."""

from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocol


async def group_assignments(
    client: AIOKafkaAdminClient, group: str
) -> Mapping[str, frozenset[TopicPartition]]:
    """Return which partitions each member of a group has; none while they are shared out.

    :raises ValueError: a member is none of Kafka's usual consumers
    """
    shares: dict[str, frozenset[TopicPartition]] = {}
    for answer in await client.describe_consumer_groups([group]):
        for _error, _group, state, _type, _protocol, members, *_rights in answer.groups:
            if state != "Stable":
                return {}
            for member_id, *_about, encoded in members:
                # Of a member that was given nothing at all there is nothing to decode.
                share = ConsumerProtocol.ASSIGNMENT.decode(encoded).assignment if encoded else ()
                shares[member_id] = frozenset(
                    TopicPartition(name, number) for name, numbers in share for number in numbers
                )
    return shares
