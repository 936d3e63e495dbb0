"""What an operator decides about a consumer that has stopped."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.operations.offsets import KafkaIsAway
from chassis.operations.stopped_consumers import NotConsumed, OfTopic, park_all
from chassis.testing import eventually
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from contracts.topics import Topic
from tests.integration.chassis.path import (
    consuming,
    count,
    create_topic,
    publish,
    rows,
    schema,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
)
from tests.integration.chassis.service import NameIsTaken

from .operating import BY_ADA, asking, runtime_of, service_of

LIMIT = 5
NO_BROKER = "127.0.0.1:1"


@pytest.fixture
async def engine(database: str) -> Any:
    async with schema(database) as engine:
        yield engine


@pytest.fixture
async def topic(kafka: str) -> Topic:
    topic = topic_of_its_own(1)
    await create_topic(kafka, topic)
    return topic


async def refuse(_event: IntegrationEvent, envelope: Envelope) -> None:
    raise NameIsTaken("taken")


async def publish_for(kafka: str, topic: Topic, subjects: Sequence[UUID]) -> None:
    await publish(kafka, topic, [signed_up(each, 1) for each in subjects])


class TestParkAll:
    async def test_lets_the_consumer_park_what_is_published_and_continue(
        self, database: str, engine: AsyncEngine, kafka: str, topic: Topic
    ) -> None:
        settings = settings_for(database, kafka, dead_letter_limit=LIMIT)
        one = subscriber("test.one", topic, before=refuse)
        runtime = runtime_of(service_of(topic, [one]), settings, engine)
        await publish_for(kafka, topic, [uuid4() for _ in range(LIMIT + 1)])
        async with consuming(settings, engine, [one], service=topic.name) as running:

            async def is_stopped() -> bool:
                return "6 aggregates" in (running.worker.trouble() or "")

            await eventually(is_stopped)
            assert await count(database, "parked") == 0

            allowed = await park_all(runtime, OfTopic(topic=topic.name), BY_ADA)

            async def all_are_parked() -> bool:
                return await count(database, "parked") == LIMIT + 1

            await eventually(all_are_parked)
            assert [(each.partition, each.below_offset) for each in allowed.allowed] == [(0, 6)]

            await publish_for(kafka, topic, [uuid4() for _ in range(LIMIT + 1)])
            await eventually(is_stopped)
            assert await count(database, "parked") == LIMIT + 1

    async def test_is_recorded_with_who_and_why(
        self, database: str, engine: AsyncEngine, kafka: str, topic: Topic
    ) -> None:
        settings = settings_for(database, kafka)
        runtime = runtime_of(service_of(topic), settings, engine)
        await publish_for(kafka, topic, [uuid4()])
        await rows(
            database,
            "INSERT INTO progress (subscriber, topic, partition, next_offset, updated_at, topic_id)"
            " VALUES ('test.one', $1, 0, 0, now(), $2)",
            topic.name,
            UUID(int=0),
        )

        async with asking(runtime) as client:
            response = await client.post(
                "/ops/progress/park-all", json={"topic": topic.name, "why": "they are tests"}
            )

        assert response.json() == {"allowed": [{"partition": 0, "below_offset": 1}]}
        [act] = await rows(database, "SELECT type, payload FROM outbox")
        assert act["type"] == "operations.parking-allowed.v1"
        assert b'"why":"they are tests"' in act["payload"]

    async def test_of_a_topic_that_is_not_consumed_is_refused(
        self, database: str, engine: AsyncEngine, kafka: str, topic: Topic
    ) -> None:
        runtime = runtime_of(service_of(topic), settings_for(database, kafka), engine)

        with pytest.raises(NotConsumed):
            await park_all(runtime, OfTopic(topic=topic.name), BY_ADA)

    async def test_is_refused_while_kafka_does_not_answer(
        self, database: str, engine: AsyncEngine, topic: Topic
    ) -> None:
        runtime = runtime_of(service_of(topic), settings_for(database, NO_BROKER), engine)
        await rows(
            database,
            "INSERT INTO progress (subscriber, topic, partition, next_offset, updated_at, topic_id)"
            " VALUES ('test.one', $1, 0, 0, now(), $2)",
            topic.name,
            UUID(int=0),
        )

        with pytest.raises(KafkaIsAway):
            await park_all(runtime, OfTopic(topic=topic.name), BY_ADA)

        assert await count(database, "park_allowances") == 0
