"""What an operator decides about a consumer that has stopped."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.consuming.holds import ContinueFrom, NotHeld
from chassis.consuming.offsets import begin
from chassis.consuming.skip_batch import BatchIsReadable
from chassis.operations.dead_letter_rows import NoSuchSubscriber
from chassis.operations.offsets import KafkaIsAway
from chassis.operations.stopped_consumers import (
    HeldSubscriber,
    NotConsumed,
    OfTopic,
    UnreadableBatch,
    end_hold,
    park_all,
    skip_batch,
)
from chassis.persistence.database import Database
from chassis.testing import eventually
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from contracts.topics import Topic
from local_cluster.testing import RunningInfrastructure
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
    utc_now,
)
from tests.integration.chassis.service import NameIsTaken
from tests.segments import flip_a_bit

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


async def have_begun(engine: Database, topic: Topic) -> None:
    """Have a subscriber at the beginning of the topic's only partition."""
    async with engine.begin() as connection:
        await begin(connection, [subscriber("test.one", topic)], topic.name, {0: (0, 0)}, utc_now)


class TestParkAll:
    async def test_lets_the_consumer_park_what_is_published_and_continue(
        self, database: str, engine: Database, kafka: str, topic: Topic
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
        self, database: str, engine: Database, kafka: str, topic: Topic
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
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        runtime = runtime_of(service_of(topic), settings_for(database, kafka), engine)

        with pytest.raises(NotConsumed):
            await park_all(runtime, OfTopic(topic=topic.name), BY_ADA)

    async def test_is_refused_while_kafka_does_not_answer(
        self, database: str, engine: Database, topic: Topic
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


async def operators_acts(database: str) -> list[str]:
    return [row["type"] for row in await rows(database, "SELECT type FROM outbox")]


class TestSkipBatch:
    async def test_has_the_consumer_continue_behind_the_batch_and_keeps_its_bytes(
        self,
        database: str,
        engine: Database,
        own_kafka: RunningInfrastructure,
    ) -> None:
        kafka, topic = own_kafka.kafka_bootstrap, topic_of_its_own(1)
        await create_topic(kafka, topic)
        for _ in range(5):
            await publish_for(kafka, topic, [uuid4()])
        flip_a_bit(own_kafka.directory, topic.name, 0, 3)
        settings = settings_for(database, kafka)
        one = subscriber("test.one", topic)
        runtime = runtime_of(service_of(topic, [one]), settings, engine)
        async with consuming(settings, engine, [one], service=topic.name) as running:

            async def is_stopped_there() -> bool:
                stopped = "can't be read at offset 3" in (running.worker.trouble() or "")
                return stopped and await count(database) == 3

            await eventually(is_stopped_there)
            batch = UnreadableBatch(topic=topic.name, partition=0, offset=3)
            skipped = await skip_batch(runtime, batch, BY_ADA)

            async def is_read_on() -> bool:
                return await count(database) == 4

            await eventually(is_read_on)
        assert (skipped.begin_offset, skipped.end_offset) == (3, 4)
        assert skipped.subscribers == ["test.one"]
        assert skipped.raw_bytes
        assert await operators_acts(database) == ["operations.batch-skipped.v1"]

    async def test_of_a_batch_that_can_be_read_is_refused_and_records_nothing(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        runtime = runtime_of(service_of(topic), settings_for(database, kafka), engine)
        await have_begun(engine, topic)
        await publish_for(kafka, topic, [uuid4()])

        with pytest.raises(BatchIsReadable):
            await skip_batch(
                runtime, UnreadableBatch(topic=topic.name, partition=0, offset=0), BY_ADA
            )
        assert await operators_acts(database) == []

    async def test_is_refused_while_kafka_does_not_answer(
        self, database: str, engine: Database, topic: Topic
    ) -> None:
        runtime = runtime_of(service_of(topic), settings_for(database, NO_BROKER), engine)
        await have_begun(engine, topic)

        with pytest.raises(KafkaIsAway):
            await skip_batch(
                runtime, UnreadableBatch(topic=topic.name, partition=0, offset=0), BY_ADA
            )

    @pytest.mark.parametrize(("name", "partition"), [("none", 0), (None, 1)])
    async def test_of_what_nobody_reads_is_refused_without_asking_kafka(
        self,
        database: str,
        engine: Database,
        topic: Topic,
        name: str | None,
        partition: int,
    ) -> None:
        runtime = runtime_of(service_of(topic), settings_for(database, NO_BROKER), engine)
        await have_begun(engine, topic)
        batch = UnreadableBatch(topic=name or topic.name, partition=partition, offset=0)

        with pytest.raises(NotConsumed):
            await skip_batch(runtime, batch, BY_ADA)


class TestEndHold:
    async def test_has_the_subscriber_continue_where_the_operator_says(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        settings = settings_for(database, kafka)
        one = subscriber("test.one", topic)
        runtime = runtime_of(service_of(topic, [one]), settings, engine)
        await publish_for(kafka, topic, [uuid4() for _ in range(3)])
        await progress_of_another_topic(database, topic)
        async with consuming(settings, engine, [one], service=topic.name) as running:

            async def is_held() -> bool:
                return "was deleted and made again" in (running.worker.trouble() or "")

            await eventually(is_held)
            held = HeldSubscriber(
                subscriber="test.one",
                topic=topic.name,
                partition=0,
                continue_from=ContinueFrom.BEGINNING,
            )
            ended = await end_hold(runtime, held, BY_ADA)

            async def all_are_handled() -> bool:
                return await count(database) == 3

            await eventually(all_are_handled)
        assert ended.next_offset == 0
        assert await operators_acts(database) == ["operations.hold-ended.v1"]

    async def test_of_a_subscriber_that_is_not_held_is_refused_and_records_nothing(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        one = subscriber("test.one", topic)
        runtime = runtime_of(service_of(topic, [one]), settings_for(database, kafka), engine)
        held = HeldSubscriber(
            subscriber="test.one", topic=topic.name, partition=0, continue_from=ContinueFrom.END
        )

        with pytest.raises(NotHeld):
            await end_hold(runtime, held, BY_ADA)
        with pytest.raises(NoSuchSubscriber):
            await end_hold(runtime, held.model_copy(update={"subscriber": "test.no"}), BY_ADA)
        assert await operators_acts(database) == []


async def progress_of_another_topic(database: str, topic: Topic) -> None:
    """Store progress as if it were of an earlier topic of this name."""
    await rows(
        database,
        "INSERT INTO progress (subscriber, topic, partition, next_offset, updated_at, topic_id)"
        " VALUES ('test.one', $1, 0, 2, now(), $2)",
        topic.name,
        uuid4(),
    )
