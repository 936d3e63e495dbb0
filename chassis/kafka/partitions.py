"""Raises a topic's number of partitions, once every subscriber has read all of it.

Keys move to other partitions then, and Kafka orders no partition after another. So every published
event has to be handled before, and none may be published meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

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
from chassis.kafka.raw_fetch import high_watermarks
from chassis.kafka.topics import topic_states
from chassis.persistence import connecting
from chassis.persistence.advisory_lock import try_lock
from chassis.persistence.database import SESSION_SETTINGS
from chassis.persistence.outbox import relay_lock_name
from chassis.settings import KafkaSettings
from contracts.topics import Topic

T = TypeVar("T")

_COMMAND_TIMEOUT_S: Final = 5.0
_BOUNDS_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1
_METADATA_TIMEOUT_S: Final = 10.0

_WAITING: Final = "SELECT count(*) FROM outbox WHERE aggregatetype = $1"
_PROGRESS: Final = (
    "SELECT subscriber, partition, next_offset, held_because FROM progress WHERE topic = $1"
)


class NotDrained(Exception):
    """An event of the topic may still be published or handled; the message names what is left."""


async def raise_partitions(
    settings: KafkaSettings, topic: Topic, databases: Mapping[str, str]
) -> bool:
    """Give a topic as many partitions as the catalogue has; return whether it had fewer.

    :param databases: the database URLs of its owner and its consumers, by service
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
        async with _relay_stopped(topic, databases[topic.owner]):
            await _require_all_handled(settings, topic, partitions, databases)
            await client.create_partitions({topic.name: NewPartitions(topic.partitions)})
            # A relay that starts asks the brokers for the number, and not again for minutes.
            async with asyncio.timeout(_METADATA_TIMEOUT_S):
                while await count() < topic.partitions:  # noqa: ASYNC110 - Kafka sends no event
                    await asyncio.sleep(_POLL_S)
    return True


@asynccontextmanager
async def _relay_stopped(topic: Topic, database_url: str) -> AsyncIterator[None]:
    """Keep the owner's relay from publishing while the block runs.

    :raises NotDrained: it runs, or has not published all of its outbox
    """
    async with _connected(database_url) as connection:
        # The relay's own lock, so that no relay starts meanwhile.
        if not await try_lock(connection, relay_lock_name(topic.owner)):
            raise NotDrained(f"the relay of {topic.owner} is at work, and has to be stopped")
        if waiting := await connection.fetchval(_WAITING, topic.name):
            raise NotDrained(f"{waiting} events wait in the outbox of {topic.owner}")
        yield


async def _require_all_handled(
    settings: KafkaSettings,
    topic: Topic,
    partitions: Collection[TopicPartition],
    databases: Mapping[str, str],
) -> None:
    # Its records come when it commits, and would come after those of their keys' new partitions.
    if hidden := sum((await hidden_offsets(settings, partitions)).values()):
        raise NotDrained(f"an open transaction hides {hidden} records")
    bounds = await partition_bounds(settings, partitions)
    held = sum(end - first for first, end in bounds.values())
    for service in topic.consumers:
        async with _connected(databases[service]) as connection:
            rows = await connection.fetch(_PROGRESS, topic.name)
        if held and not rows:
            raise NotDrained(f"{service} has never read it")
        offsets = {(row["subscriber"], row["partition"]): row["next_offset"] for row in rows}
        # Its offset may be behind the end of the topic, so that it would not count as behind.
        if on_hold := sorted({row["subscriber"] for row in rows if row["held_because"]}):
            raise NotDrained(f"{', '.join(on_hold)} is held until an operator decides")
        for subscriber in sorted({row["subscriber"] for row in rows}):
            behind = sum(
                max(0, end - offsets.get((subscriber, tp.partition), first))
                for tp, (first, end) in bounds.items()
            )
            if behind:
                raise NotDrained(f"{subscriber} is {behind} behind")


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator["asyncpg.Connection"]:
    connection = await connecting.connect(
        database_url,
        application_name="raise-partitions",
        settings=SESSION_SETTINGS,
        command_timeout_s=_COMMAND_TIMEOUT_S,
    )
    try:
        yield connection
    finally:
        await connection.close()


async def partition_bounds(
    settings: KafkaSettings, partitions: Collection[TopicPartition], *, committed: bool = True
) -> Mapping[TopicPartition, tuple[int, int]]:
    """Return the first and the next offset of each partition.

    :param committed: a partition ends, as it does for readers, where an open transaction begins
    :raises KafkaError: the brokers did not answer within seconds
    """

    async def ask(consumer: AIOKafkaConsumer) -> Mapping[TopicPartition, tuple[int, int]]:
        first = await consumer.beginning_offsets(partitions)
        following = await consumer.end_offsets(partitions)
        return {each: (first[each], following[each]) for each in partitions}

    return await ask_as_consumer(settings, ask, committed=committed) if partitions else {}


async def hidden_offsets(
    settings: KafkaSettings, partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, int]:
    """Return how many offsets an open transaction hides from readers in each partition.

    :raises KafkaError: the brokers did not answer within seconds
    """

    async def ask(consumer: AIOKafkaConsumer) -> Mapping[TopicPartition, int]:
        await consumer.beginning_offsets(partitions)  # the consumer learns the leaders by that
        # In this order: what commits meanwhile does not count as hidden.
        ends = await high_watermarks(consumer._client, list(partitions))  # noqa: SLF001
        stable = await consumer.end_offsets(partitions)
        return {each: max(0, ends[each] - stable[each]) for each in partitions}

    return await ask_as_consumer(settings, ask) if partitions else {}


async def ask_as_consumer(
    settings: KafkaSettings,
    ask: Callable[[AIOKafkaConsumer], Awaitable[T]],
    *,
    committed: bool = True,
) -> T:
    """Return the result of a request, made by a consumer of no group that is open for it alone.

    :raises KafkaError: the brokers did not answer within seconds
    """
    try:
        with translate_foreign_cancellation():
            async with (
                asyncio.timeout(_BOUNDS_TIMEOUT_S),
                consumer_without_group(settings, committed=committed) as consumer,
            ):
                return await ask(consumer)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer within {_BOUNDS_TIMEOUT_S:g} s") from error


@asynccontextmanager
async def consumer_without_group(
    settings: KafkaSettings, *, committed: bool = True
) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer that belongs to no group and reads nothing by itself.

    :raises KafkaError: no broker answers
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        request_timeout_ms=int(_BOUNDS_TIMEOUT_S * 1_000),
        isolation_level="read_committed" if committed else "read_uncommitted",
        **KafkaSecurity.of(settings).client_arguments(),
    )
    await start_or_close(consumer._client, consumer.start, consumer.stop)  # noqa: SLF001
    try:
        yield consumer
    finally:
        await complete(consumer.stop())
