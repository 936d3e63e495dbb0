"""Kafka as a service meets it: how to connect, whether it answers, and the topics it must have.

``python -m chassis.kafka create-topics`` makes the topics of the catalogue, ``raise-partitions``
brings one to as many partitions as the catalogue says by now.
"""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Collection, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    for_code,
)

from chassis.settings import KafkaSettings
from contracts.topics import TOPICS, Topic

_REQUEST_TIMEOUT_MS: Final = 5_000
_BOUNDS_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """How a client proves who it is and knows whom it talks to."""

    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: KafkaSettings) -> "KafkaSecurity":
        password = settings.kafka_sasl_password
        encrypted = settings.kafka_security_protocol.endswith("SSL")
        return cls(
            protocol=settings.kafka_security_protocol,
            sasl_mechanism=settings.kafka_sasl_mechanism,
            sasl_username=settings.kafka_sasl_username,
            sasl_password=password.get_secret_value() if password else None,
            ssl_context=ssl.create_default_context(cafile=settings.kafka_ca_file)
            if encrypted
            else None,
        )

    def client_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that every aiokafka client takes."""
        return {
            "security_protocol": self.protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_context": self.ssl_context,
        }


@asynccontextmanager
async def admin_client(
    bootstrap: str, security: KafkaSecurity = KafkaSecurity()
) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an administrative client.

    :raises KafkaError: no broker answers
    """
    client = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        **security.client_arguments(),
    )
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
        yield client
    finally:
        # Cancelled amid it, aiokafka would leave a connection open that it does not know of.
        await asyncio.wait([starting])
        await client.close()


@contextmanager
def cancelled_by_us_only() -> Generator[None, None, None]:
    """Let a cancellation out only where this task is being cancelled.

    aiokafka cancels futures and tasks of its own, when a broker dies or a client is closed as
    soon as it was opened, and lets that out: it would end whoever asked, without a word.

    :raises KafkaConnectionError: aiokafka cancelled something of its own
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise KafkaConnectionError("given up by the client") from error


async def bounds_of(
    settings: KafkaSettings, partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, tuple[int, int]]:
    """Return the first and the next offset of each partition.

    :raises KafkaError: the brokers did not say within seconds
    """
    if not partitions:
        return {}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        **KafkaSecurity.of(settings).client_arguments(),
    )
    try:
        with cancelled_by_us_only():
            async with asyncio.timeout(_BOUNDS_WITHIN_S):
                await consumer.start()
                first = await consumer.beginning_offsets(partitions)
                following = await consumer.end_offsets(partitions)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer within {_BOUNDS_WITHIN_S:g} s") from error
    finally:
        with cancelled_by_us_only():
            await consumer.stop()
    return {each: (first[each], following[each]) for each in partitions}


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the cluster has it."""

    partitions: int
    replication_factor: int
    config: Mapping[str, str]


async def topic_states(
    client: AIOKafkaAdminClient, names: Iterable[str]
) -> dict[str, TopicState | None]:
    """Return each topic's state, None for one that is missing."""
    wanted = list(names)
    found = {
        each["topic"]: each["partitions"]
        for each in await client.describe_topics(wanted)
        if each["error_code"] == 0
    }
    configs: dict[str, Mapping[str, str]] = {}
    if found:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
        for response in await client.describe_configs(resources):
            for _code, _message, _type, name, entries in response.resources:
                configs[name] = {entry[0]: entry[1] for entry in entries}
    return {
        name: TopicState(
            partitions=len(found[name]),
            replication_factor=min(len(each["replicas"]) for each in found[name]),
            config=configs[name],
        )
        if name in found
        else None
        for name in wanted
    }


async def shares_of(
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


def shortcomings(topic: Topic, state: TopicState | None) -> list[str]:
    """Say in what a topic falls short of the catalogue; an empty list when it does not."""
    if state is None:
        return [f"topic {topic.name} is missing"]
    short = []
    if state.partitions < topic.partitions:
        short.append(f"has {state.partitions} of {topic.partitions} partitions")
    if state.replication_factor < topic.replication_factor:
        short.append(f"has {state.replication_factor} of {topic.replication_factor} replicas")
    if int(state.config.get("min.insync.replicas", 1)) < topic.min_insync_replicas:
        short.append(f"has min.insync.replicas below {topic.min_insync_replicas}")
    if int(state.config.get("max.message.bytes", 0)) < topic.max_message_bytes:
        short.append(f"has max.message.bytes below {topic.max_message_bytes}")
    kept_ms, asked_ms = int(state.config.get("retention.ms", -1)), topic.retention_ms
    if kept_ms != -1 and (asked_ms is None or kept_ms < asked_ms):
        short.append(f"keeps records for {kept_ms} ms only")
    if "compact" in state.config.get("cleanup.policy", "delete"):
        short.append("is compacted, which removes events")
    return [f"topic {topic.name} {each}" for each in short]


async def create_topics(client: AIOKafkaAdminClient, *, brokers: int) -> list[str]:
    """Create what is missing of the catalogue; return the names of those made.

    With fewer brokers than the catalogue asks replicas for, a topic gets one replica a broker.

    :raises KafkaError: the cluster refuses one
    """
    states = await topic_states(client, [topic.name for topic in TOPICS])
    missing = [topic for topic in TOPICS if states[topic.name] is None]
    if not missing:
        return []
    response = await client.create_topics([_new(topic, brokers) for topic in missing])
    for name, code, *_ in response.topic_errors:
        error = for_code(code)
        # Somebody else may have been faster; that is what was wanted.
        if code != 0 and error is not TopicAlreadyExistsError:
            raise error(name)
    return [topic.name for topic in missing]


def _new(topic: Topic, brokers: int) -> NewTopic:
    replicas = min(topic.replication_factor, brokers)
    return NewTopic(
        name=topic.name,
        num_partitions=topic.partitions,
        replication_factor=replicas,
        topic_configs={
            "min.insync.replicas": str(min(topic.min_insync_replicas, replicas)),
            "max.message.bytes": str(topic.max_message_bytes),
            "retention.ms": str(-1 if topic.retention_ms is None else topic.retention_ms),
            "retention.bytes": "-1",
            "cleanup.policy": "delete",
            # A record bears the time of its outbox row, whose clock may be ahead of the broker's.
            "message.timestamp.after.max.ms": str(2**63 - 1),
        },
    )


@click.group(help=__doc__)
def main() -> None: ...


@main.command("create-topics")
@click.option("--bootstrap", required=True, help="host:port of a broker")
def create_topics_command(bootstrap: str) -> None:
    """Create the topics of the catalogue that are missing."""

    async def create() -> list[str]:
        async with admin_client(bootstrap) as client:
            cluster = await client.describe_cluster()
            return await create_topics(client, brokers=len(cluster["brokers"]))

    try:
        made = asyncio.run(create())
    except KafkaError as error:
        click.echo(f"{bootstrap}: {type(error).__name__}", err=True)
        sys.exit(1)
    click.echo(f"created {', '.join(made)}" if made else "every topic is there already")


@main.command("raise-partitions")
@click.argument("topic", type=click.Choice([topic.name for topic in TOPICS]), metavar="TOPIC")
@click.option("--bootstrap", required=True, help="host:port of a broker")
def raise_partitions_command(topic: str, bootstrap: str) -> None:
    """Give a topic as many partitions as the catalogue says, once all in it is done.

    Keys move then, so it is refused, with exit code 2, while its owner publishes or somebody has
    not read all of it. USERS_DATABASE_URL and so on say where the owner and the consumers keep
    what they know of that.
    """
    from chassis import partitions  # noqa: PLC0415 - it stands on this module

    chosen = next(each for each in TOPICS if each.name == topic)
    variables = {
        service: f"{service.upper()}_DATABASE_URL" for service in {chosen.owner, *chosen.consumers}
    }
    unset = sorted(name for name in variables.values() if not os.environ.get(name))
    if unset:
        click.echo(f"not set: {', '.join(unset)}", err=True)
        sys.exit(2)
    databases = {service: os.environ[name] for service, name in variables.items()}
    settings = KafkaSettings(kafka_bootstrap=bootstrap)
    try:
        raised = asyncio.run(partitions.raise_partitions(settings, chosen, databases))
    except partitions.NotDrained as refused:
        click.echo(f"{topic} is not drained: {refused}", err=True)
        sys.exit(2)
    except (KafkaError, asyncpg.PostgresError, OSError) as error:
        click.echo(f"{topic}: {type(error).__name__}", err=True)
        sys.exit(1)
    click.echo(f"{topic} has {'now' if raised else 'already'} the {chosen.partitions} partitions")


if __name__ == "__main__":
    main()
