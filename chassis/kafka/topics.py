"""Compares the topics of the catalogue with those of the cluster, and creates missing ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from chassis.kafka.shown import until_shown
from contracts.topics import TOPICS, Topic


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the cluster has it."""

    partitions: int
    replication_factor: int
    config: Mapping[str, str]


async def topic_states(
    client: AIOKafkaAdminClient, names: Iterable[str]
) -> dict[str, TopicState | None]:
    """Return the state of each topic; None: it is missing.

    :raises TopicAuthorizationFailedError: this client may not describe some; its message names them
    """
    wanted = list(names)
    described = await client.describe_topics(wanted)
    _refuse_forbidden((each["topic"], each["error_code"]) for each in described)
    found = {each["topic"]: each["partitions"] for each in described if each["error_code"] == 0}
    configs: dict[str, Mapping[str, str]] = {}
    if found:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
        for response in await client.describe_configs(resources):
            _refuse_forbidden((name, code) for code, _, _, name, _ in response.resources)
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


def _refuse_forbidden(codes: Iterable[tuple[str, int]]) -> None:
    forbidden = [name for name, code in codes if code == TopicAuthorizationFailedError.errno]
    if forbidden:
        raise TopicAuthorizationFailedError(", ".join(forbidden))


def config_violations(topic: Topic, state: TopicState | None) -> list[str]:
    """Return a sentence for each setting that is below what the catalogue asks for."""
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


async def create_topics(
    client: AIOKafkaAdminClient, *, brokers: int, replicas: int | None = None
) -> list[str]:
    """Create the missing topics of the catalogue, and return their names once the broker has them.

    :param replicas: how many each gets. None: what the catalogue asks for, or with fewer brokers
        one on each
    :raises TopicAuthorizationFailedError: a topic is forbidden to this client, and may exist
    :raises KafkaError: the cluster refuses to create one
    :raises NotShown: it has taken them, and does not show them
    """
    states = await topic_states(client, [topic.name for topic in TOPICS])
    missing = [topic for topic in TOPICS if states[topic.name] is None]
    if not missing:
        return []
    response = await client.create_topics(
        [_new(each, replicas or min(each.replication_factor, brokers)) for each in missing]
    )
    for name, code, message, *_ in response.topic_errors:
        error = for_code(code)
        # Another process may have created it meanwhile.
        if code != 0 and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {message}" if message else name)
    names = [topic.name for topic in missing]

    async def missing_still() -> list[str]:
        return [
            name for name, state in (await topic_states(client, names)).items() if state is None
        ]

    await until_shown(missing_still)
    return names


def _new(topic: Topic, replicas: int) -> NewTopic:
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
            # A record has the time of its outbox row, by a clock that may be ahead of the broker's.
            "message.timestamp.after.max.ms": str(2**63 - 1),
        },
    )
