"""Sign-ups as a producer outside of the system publishes them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from aiokafka import AIOKafkaProducer

from chassis.correlation import new_id
from contracts.envelope import EncodedEvent, encode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from local_cluster.testing import RunningCluster


def signed_up(subject: UUID, sequence: int, user: UUID, username: str) -> EncodedEvent:
    return encode(
        UserSignedUpV1(user_id=user, username=username),
        id=new_id(),
        source="/users",
        subject=str(subject),
        time=datetime.now(UTC),
        sequence=sequence,
        correlationid="ahead",
    )


def with_invalid_data(event: EncodedEvent) -> EncodedEvent:
    """Return a sign-up that every subscriber parks: its data has no username."""
    return EncodedEvent(
        event.key, event.payload.replace(b'"username":', b'"user_name":'), event.headers
    )


async def publish(cluster: RunningCluster, events: Sequence[EncodedEvent]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=cluster.kafka_bootstrap)
    await producer.start()
    try:
        for each in events:
            await producer.send_and_wait(
                USERS_USER.name, each.payload, key=each.key, headers=each.headers
            )
    finally:
        await producer.stop()
