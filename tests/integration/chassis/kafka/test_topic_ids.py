"""A topic has an id as long as it exists, and another when it is made again."""

from uuid import UUID

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from chassis.kafka import topic_ids as topic_ids_module
from chassis.kafka.client import admin_client
from chassis.kafka.topic_ids import topic_ids
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from chassis.testing import eventually
from contracts.topics import Topic
from tests.integration.chassis.path import create_topic, topic_of_its_own


async def make_again(client: AIOKafkaAdminClient, kafka: str, topic: Topic) -> None:
    await client.delete_topics([topic.name])

    async def is_gone() -> bool:
        return topic.name not in await topic_ids(client, [topic.name])

    await eventually(is_gone)
    await create_topic(kafka, topic)


async def id_of(client: AIOKafkaAdminClient, topic: Topic) -> UUID:
    found: list[UUID] = []

    async def is_there() -> bool:
        found[:] = (await topic_ids(client, [topic.name])).values()
        return bool(found)

    await eventually(is_there, despite=(KafkaError,))
    return found[0]


class TestTheIdOfATopic:
    async def test_stays_while_it_exists_and_is_another_when_it_is_made_again(
        self, kafka: str
    ) -> None:
        topic, other = topic_of_its_own(), topic_of_its_own()
        await create_topic(kafka, topic)
        await create_topic(kafka, other)
        async with admin_client(kafka) as client:
            first = await id_of(client, topic)
            assert first not in (UNKNOWN_TOPIC_ID, await id_of(client, other))
            assert await id_of(client, topic) == first

            await make_again(client, kafka, topic)

            assert await id_of(client, topic) not in (UNKNOWN_TOPIC_ID, first)

    async def test_is_left_out_where_there_is_no_topic(self, kafka: str) -> None:
        topic, missing = topic_of_its_own(), topic_of_its_own()
        await create_topic(kafka, topic)
        async with admin_client(kafka) as client:
            await id_of(client, topic)

            assert (await topic_ids(client, [topic.name, missing.name])).keys() == {topic.name}

    async def test_is_unknown_where_the_broker_has_no_such_request(
        self, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(topic_ids_module._MetadataRequestStruct, "API_VERSION", 99)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with admin_client(kafka) as client:
            assert await topic_ids(client, [topic.name]) == {topic.name: UNKNOWN_TOPIC_ID}
