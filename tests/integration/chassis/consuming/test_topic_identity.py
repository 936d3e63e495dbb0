"""A topic that was deleted and made again is noticed, and held until an operator decides."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError
from prometheus_client import REGISTRY

from chassis.consuming import worker
from chassis.consuming.chunk_thread import ChunkThread
from chassis.consuming.faust_app import consumer_of
from chassis.consuming.holds import ContinueFrom, Decision, end_hold, see_topic
from chassis.consuming.offsets import begin
from chassis.kafka.client import admin_client
from chassis.kafka.topic_ids import topic_ids
from chassis.persistence.database import Database
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from chassis.testing import eventually
from contracts.envelope import EncodedEvent
from contracts.topics import Topic
from tests.integration.chassis.path import (
    RunningWorker,
    consuming,
    count,
    create_topic,
    one_consuming,
    publish,
    rows,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
    until_handled,
    until_reports,
    until_well,
    utc_now,
)

FROM_BEGINNING = Decision(ContinueFrom.BEGINNING)


async def delete(kafka: str, topic: Topic) -> None:
    async with admin_client(kafka) as client:
        await client.delete_topics([topic.name])

        async def is_gone() -> bool:
            return topic.name not in await topic_ids(client, [topic.name])

        await eventually(is_gone)


async def make_again(kafka: str, topic: Topic) -> None:
    await delete(kafka, topic)
    await create_topic(kafka, topic)


async def publish_to_each(kafka: str, topic: Topic, events: int) -> None:
    """Publish so many events to each partition, each of a subject of its own."""
    for partition in range(topic.partitions):

        async def is_published(to: int = partition) -> bool:
            await publish(kafka, topic, [signed_up(uuid4(), 1) for _ in range(events)], to)
            return True

        await eventually(is_published, despite=(KafkaError,))


def thread_of(running: RunningWorker) -> ChunkThread:
    watchdog = running.worker._watchdog
    assert watchdog is not None
    return consumer_of(watchdog._app)._thread


async def until_held(database: str, partitions: int) -> None:
    async def all_are() -> bool:
        held = await rows(database, "SELECT FROM progress WHERE held_because IS NOT NULL")
        return len(held) == partitions

    await eventually(all_are)


async def end_holds(database: str, kafka: str, engine: Database, decision: Decision) -> None:
    """Do what an operator does about everything that is held."""
    held = await rows(database, "SELECT * FROM progress WHERE held_because IS NOT NULL")
    for row in held:
        tp = TopicPartition(row["topic"], row["partition"])
        seen = await see_topic(settings_for(database, kafka), tp.topic)
        async with engine.begin() as connection:
            await end_hold(connection, row["subscriber"], tp, decision, seen, utc_now())


class TestATopicThatIsDeleted:
    async def test_is_waited_for_and_held_when_it_is_made_again(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic) as running:
            await publish_to_each(kafka, topic, 3)
            await until_handled(database, 6)

            await delete(kafka, topic)
            await until_reports(running, f"topic {topic.name} is missing")
            await create_topic(kafka, topic)
            await publish_to_each(kafka, topic, 5)
            await until_reports(running, f"{topic.name} was deleted and made again")

            assert await count(database) == 6
            await end_holds(database, kafka, engine, FROM_BEGINNING)
            await until_handled(database, 16)
            await until_well(running)
            assert not running.task.done()

    async def test_with_events_that_were_not_handled_ends_no_process(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic, other = topic_of_its_own(1), topic_of_its_own(1)
        for each in (topic, other):
            await create_topic(kafka, each)
        blocked = asyncio.Event()

        async def wait(*_: object) -> None:
            await blocked.wait()

        subscribers = [subscriber("test.one", topic, before=wait), subscriber("test.two", other)]
        async with consuming(
            settings_for(database, kafka), engine, subscribers, service=topic.name
        ) as running:
            await until_well(running)
            await publish_to_each(kafka, topic, 3)
            await delete(kafka, topic)

            await until_reports(running, f"topic {topic.name} is missing")
            await publish_to_each(kafka, other, 3)
            await until_handled(database, 3)
            assert not running.task.done()
            blocked.set()


class TestATopicThatIsMadeAgain:
    @pytest.mark.parametrize("events", [2, 9], ids=["shorter than progress", "grown past it"])
    async def test_is_not_handled_until_an_operator_decides(
        self, database: str, engine: Database, kafka: str, events: int
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        settings = settings_for(database, kafka)
        both = [subscriber("test.one", topic), subscriber("test.two", topic)]
        async with consuming(settings, engine, both, service=topic.name) as running:
            await publish_to_each(kafka, topic, 3)
            await until_handled(database, 12)

            await make_again(kafka, topic)
            await until_reports(running, f"{topic.name} was deleted and made again")
            await publish_to_each(kafka, topic, events)
            await until_held(database, 4)
            labels = {"subscriber": "test.one", "topic": topic.name}
            assert REGISTRY.get_sample_value("consumer_held_partitions", labels) == 2
        # Started again, when the topic has grown past progress or not.
        async with consuming(settings, engine, both, service=topic.name) as running:
            await until_reports(running, f"{topic.name} was deleted and made again")

            assert await count(database) == 12
            await end_holds(database, kafka, engine, FROM_BEGINNING)
            await until_handled(database, 12 + 4 * events)
            await until_well(running)
            assert REGISTRY.get_sample_value("consumer_held_partitions", labels) == 0

    async def test_while_no_worker_reads_it_is_noticed_at_the_start(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic):
            await publish_to_each(kafka, topic, 3)
            await until_handled(database, 6)
        await make_again(kafka, topic)
        await publish_to_each(kafka, topic, 9)

        async with one_consuming(database, kafka, engine, topic) as running:
            await until_reports(running, f"{topic.name} was deleted and made again")

            await end_holds(database, kafka, engine, Decision(ContinueFrom.END))
            await until_well(running)
            assert await count(database) == 6
            await publish_to_each(kafka, topic, 1)
            await until_handled(database, 8)

    async def test_with_more_partitions_has_them_held_too(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic) as running:
            await publish_to_each(kafka, topic, 3)
            await until_handled(database, 6)

            more = replace(topic, partitions=4)
            await delete(kafka, topic)
            await until_reports(running, f"topic {topic.name} is missing")
            await create_topic(kafka, more)
            await publish_to_each(kafka, more, 1)
            await until_held(database, 4)

            assert await count(database) == 6
            await end_holds(database, kafka, engine, FROM_BEGINNING)
            await until_handled(database, 10)

    async def test_and_not_known_by_its_id_is_read_from_its_progress(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        await publish_to_each(kafka, topic, 3)
        one = subscriber("test.one", topic)
        async with engine.begin() as connection:
            bounds = {0: (1, 3), 1: (2, 3)}
            await begin(connection, [one], topic.name, bounds, utc_now, UNKNOWN_TOPIC_ID)

        async with one_consuming(database, kafka, engine, topic) as running:
            await until_handled(database, 3)
            await until_well(running)

        async with admin_client(kafka) as client:
            [id_] = (await topic_ids(client, [topic.name])).values()
        assert await self.ids(database) == {id_}

    async def ids(self, database: str) -> set[UUID]:
        found = await rows(database, "SELECT topic_id FROM progress")
        return {row["topic_id"] for row in found}


class TestALook:
    async def test_notices_a_topic_that_was_made_again_without_a_rebalance(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic) as running:
            await until_well(running)

            # As if what is read had been another topic: only its id differs.
            thread, tp, former = thread_of(running), TopicPartition(topic.name, 0), uuid4()
            await rows(database, "UPDATE progress SET topic_id = $1", former)
            position = thread.fetch_positions[tp]
            thread.fetch_positions[tp] = replace(position, topic_id=former)

            await until_reports(running, f"{topic.name} was deleted and made again")
            await publish_to_each(kafka, topic, 3)
            await end_holds(database, kafka, engine, FROM_BEGINNING)
            await until_handled(database, 3)


class TestBetweenTwoLooks:
    async def test_what_was_handled_stays_and_the_rest_is_handled_from_the_beginning_once(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The limit of the promise: a topic that was made again is known by looking only."""
        monkeypatch.setattr(worker, "_ASK_KAFKA_EVERY_S", 6)
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        ada = uuid4()
        async with one_consuming(database, kafka, engine, topic) as running:
            await publish(kafka, topic, [signed_up(ada, number) for number in (1, 2)])
            await until_handled(database, 2)

            await make_again(kafka, topic)
            events = [signed_up(ada, number) for number in range(3, 9)]
            await publish(kafka, topic, events)
            await until_held(database, 1)
            await end_holds(database, kafka, engine, FROM_BEGINNING)

            await until_handled(database, 8)
            await until_well(running)
        found = await rows(database, "SELECT sequence FROM effects")
        assert sorted(row["sequence"] for row in found) == list(range(1, 9))
        assert await rows(database, "SELECT * FROM inbox_missing") == []


def larger(event: EncodedEvent) -> EncodedEvent:
    return replace(event, headers=[*event.headers, ("padding", bytes(300_000))])


class TestATopicThatIsCut:
    async def cut(self, kafka: str, topic: Topic, offset: int) -> None:
        async with admin_client(kafka) as client:
            await client.delete_records(
                {TopicPartition(topic.name, 0): RecordsToDelete(before_offset=offset)}
            )

    async def test_while_it_is_read_is_held_and_its_other_partitions_are_not(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        first = asyncio.Event()

        async def wait(*_: object) -> None:
            await first.wait()

        settings = settings_for(database, kafka)
        one = subscriber("test.one", topic, before=wait)
        async with consuming(settings, engine, [one], service=topic.name) as running:
            await until_well(running)
            # Each is larger than what is fetched at once, so most are gone before they are fetched.
            await publish(kafka, topic, [larger(signed_up(uuid4(), 1)) for _ in range(9)], 0)
            await self.cut(kafka, topic, 6)
            first.set()

            await until_reports(running, f"{topic.name}[0] holds 6 to 9, and progress is at ")
            handled = await count(database)
            assert handled < 6
            await publish(kafka, topic, [signed_up(uuid4(), 1)], 1)
            await until_handled(database, handled + 1)
        async with consuming(settings, engine, [one], service=topic.name) as running:
            await until_reports(running, f"{topic.name}[0] holds 6 to 9, and progress is at ")

            await end_holds(database, kafka, engine, Decision(ContinueFrom.OFFSET, 7))
            await until_handled(database, handled + 3)
            await until_well(running)

    async def test_at_its_end_is_held_though_it_has_grown_when_the_worker_comes_back(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        one = subscriber("test.one", topic)
        await publish_to_each(kafka, topic, 3)
        async with engine.begin() as connection:
            await begin(connection, [one], topic.name, {0: (5, 5)}, utc_now)
        async with one_consuming(database, kafka, engine, topic) as running:
            await until_reports(running, f"{topic.name}[0] holds 0 to 3, and progress is at 5")
        await publish_to_each(kafka, topic, 6)

        async with one_consuming(database, kafka, engine, topic) as running:
            await until_reports(running, f"{topic.name}[0] holds 0 to 3, and progress is at 5")
            assert await count(database) == 0

            await end_holds(database, kafka, engine, FROM_BEGINNING)
            await until_handled(database, 9)

    async def test_at_its_end_while_it_is_read_is_held_by_what_a_fetch_did_not_find(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic) as running:
            await publish_to_each(kafka, topic, 3)
            await until_handled(database, 3)

            # As if the fetch after the third had found nothing, and the topic had grown since.
            thread, tp = thread_of(running), TopicPartition(topic.name, 0)
            thread.out_of_range[tp] = 3
            await thread.leave([tp])
            await publish_to_each(kafka, topic, 3)

            await until_reports(running, f"{topic.name}[0] ended before 3, and now holds 0 to ")
            assert await count(database) == 3
            await end_holds(database, kafka, engine, Decision(ContinueFrom.OFFSET, 3))
            await until_handled(database, 6)
            await until_well(running)
