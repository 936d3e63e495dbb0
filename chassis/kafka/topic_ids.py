"""Kafka's ids of topics (KIP-516): a topic that is deleted and made again has another one.

aiokafka knows requests for metadata up to version 5, and ids are in it from version 10 on. So the
request is here, sent through aiokafka's client, with its security and its connections.
"""

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IncompatibleBrokerVersion, UnknownTopicOrPartitionError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from chassis.persistence.tables import UNKNOWN_TOPIC_ID

_UUID_BYTES: Final = 16


class _Uuid(AbstractType[UUID]):  # type: ignore[misc]  # aiokafka has no annotations
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(_UUID_BYTES))


_TAGS: Final = ("tags", TaggedFields)
_NUMBERS: Final = CompactArray(Int32)
_STRING: Final = CompactString("utf-8")


class _MetadataResponse(Response):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32), ("host", _STRING), ("port", Int32), ("rack", _STRING), _TAGS
            ),
        ),
        ("cluster_id", _STRING),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _STRING),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", _NUMBERS),
                        ("isr", _NUMBERS),
                        ("offline_replicas", _NUMBERS),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _MetadataRequestStruct(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _STRING), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_authorized_operations", Boolean),
        _TAGS,
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):  # type: ignore[misc]  # as above
    API_KEY = 3

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> _MetadataRequestStruct:
        oldest, newest = versions.get(self.API_KEY, (0, 0))
        if not oldest <= _MetadataRequestStruct.API_VERSION <= newest:
            raise IncompatibleBrokerVersion(f"Metadata {oldest} to {newest}")
        struct: _MetadataRequestStruct = super().prepare(versions)
        return struct

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        topics: list[Any] = [(UNKNOWN_TOPIC_ID, name, {}) for name in self._names]
        return request_struct_class(topics, False, False, {})  # noqa: FBT003 - by position only


def are_different(one: UUID, other: UUID) -> bool:
    """Tell whether two ids are known, and of two topics."""
    return one != other and UNKNOWN_TOPIC_ID not in (one, other)


async def topic_ids(client: AIOKafkaAdminClient, names: Iterable[str]) -> Mapping[str, UUID]:
    """Return the id of each topic that exists; a topic that is missing is left out.

    The id is ``UNKNOWN_TOPIC_ID`` where the broker is too old for ids, or does not let this client
    describe the topic.

    :raises KafkaError: the broker does not answer
    """
    wanted = list(names)
    internal: Any = client._client  # noqa: SLF001 - aiokafka offers no other way to send a request
    try:
        answer = await internal.send(internal.get_random_node(), _MetadataRequest(wanted))
    except IncompatibleBrokerVersion:
        return dict.fromkeys(wanted, UNKNOWN_TOPIC_ID)
    return {
        name: topic_id
        for error_code, name, topic_id, *_ in answer.topics
        if error_code != UnknownTopicOrPartitionError.errno
    }
