"""More partitions for a topic, once nothing of it is on its way.

Keys move to other partitions then, and nobody orders one partition after another. So all that was
published has to be done, and nothing may be published meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewPartitions
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from chassis.kafka.client import (
    KafkaSecurity,
    admin_client,
    complete,
    start_or_close,
    translate_foreign_cancellation,
)
from chassis.kafka.topics import topic_states
from chassis.persistence.advisory_lock import try_lock
from chassis.persistence.database import SESSION_SETTINGS
from chassis.persistence.outbox import relay_lock_name
from chassis.settings import KafkaSettings
from contracts.topics import Topic

_CONNECT_TIMEOUT_S: Final = 5.0
_BOUNDS_WITHIN_S: Final = 5.0
_ASK_AGAIN_S: Final = 0.1
_SEEN_WITHIN_S: Final = 10.0

_WAITING: Final = "SELECT count(*) FROM outbox WHERE aggregatetype = $1"
_PROGRESS: Final = "SELECT subscriber, partition, next_offset FROM progress WHERE topic = $1"


class NotDrained(Exception):
    """Something of the topic is still on its way; the message says what."""


async def raise_partitions(
    settings: KafkaSettings, topic: Topic, databases: Mapping[str, str]
) -> bool:
    """Give a topic as many partitions as the catalogue says; tell whether it had fewer.

    :param databases: the URLs of those of its owner and its consumers, by service
    :raises NotDrained: nothing was changed
    :raises UnknownTopicOrPartitionError: there is no such topic
    :raises KafkaError: no broker answers, or it refuses
    """
    async with admin_client(settings.kafka_bootstrap, KafkaSecurity.of(settings)) as client:

        async def count() -> int:
            state = (await topic_states(client, [topic.name]))[topic.name]
            if state is None:
                raise UnknownTopicOrPartitionError(topic.name)
            return state.partitions

        partitions = [TopicPartition(topic.name, number) for number in range(await count())]
        if len(partitions) >= topic.partitions:
            return False
        async with _nobody_publishing(topic, databases[topic.owner]):
            await _refuse_unless_all_is_done(settings, topic, partitions, databases)
            await client.create_partitions({topic.name: NewPartitions(topic.partitions)})
            # The relay asks the brokers how many there are when it begins, and not again for long.
            async with asyncio.timeout(_SEEN_WITHIN_S):
                while await count() < topic.partitions:  # noqa: ASYNC110 - no broker would tell
                    await asyncio.sleep(_ASK_AGAIN_S)
    return True


@asynccontextmanager
async def _nobody_publishing(topic: Topic, database_url: str) -> AsyncIterator[None]:
    async with _connected(database_url) as connection:
        # Held until we are done, so that no relay begins in between.
        if not await try_lock(connection, relay_lock_name(topic.owner)):
            raise NotDrained(f"the relay of {topic.owner} is at work, and has to be stopped")
        if waiting := await connection.fetchval(_WAITING, topic.name):
            raise NotDrained(f"{waiting} events wait in the outbox of {topic.owner}")
        yield


async def _refuse_unless_all_is_done(
    settings: KafkaSettings,
    topic: Topic,
    partitions: Collection[TopicPartition],
    databases: Mapping[str, str],
) -> None:
    bounds = await partition_bounds(settings, partitions)
    held = sum(end - first for first, end in bounds.values())
    for service in topic.consumers:
        async with _connected(databases[service]) as connection:
            rows = await connection.fetch(_PROGRESS, topic.name)
        if held and not rows:
            raise NotDrained(f"{service} has never read it")
        places = {(row["subscriber"], row["partition"]): row["next_offset"] for row in rows}
        for subscriber in sorted({row["subscriber"] for row in rows}):
            behind = sum(
                max(0, end - places.get((subscriber, tp.partition), first))
                for tp, (first, end) in bounds.items()
            )
            if behind:
                raise NotDrained(f"{subscriber} is {behind} behind")


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator["asyncpg.Connection"]:
    connection = await asyncpg.connect(
        database_url,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=_CONNECT_TIMEOUT_S,
        server_settings=SESSION_SETTINGS | {"application_name": "raise-partitions"},
    )
    try:
        yield connection
    finally:
        await connection.close()


async def partition_bounds(
    settings: KafkaSettings, partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, tuple[int, int]]:
    """Return the first and the next offset of each partition.

    :raises KafkaError: the brokers did not answer within seconds
    """
    if not partitions:
        return {}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        request_timeout_ms=int(_BOUNDS_WITHIN_S * 1_000),
        **KafkaSecurity.of(settings).client_arguments(),
    )
    try:
        with translate_foreign_cancellation():
            async with asyncio.timeout(_BOUNDS_WITHIN_S):
                await start_or_close(consumer._client, consumer.start, consumer.stop)  # noqa: SLF001
                try:
                    first = await consumer.beginning_offsets(partitions)
                    following = await consumer.end_offsets(partitions)
                finally:
                    await complete(consumer.stop())
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer within {_BOUNDS_WITHIN_S:g} s") from error
    return {each: (first[each], following[each]) for each in partitions}
