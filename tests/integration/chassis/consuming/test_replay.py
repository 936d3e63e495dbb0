"""A subscriber that is far behind replays by itself, and the others handle what is new."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from prometheus_client import REGISTRY

from chassis.consuming.offsets import begin
from chassis.consuming.subscribers import Start
from chassis.kafka.client import admin_client
from chassis.persistence.database import Database
from chassis.settings import ServiceSettings
from chassis.testing import eventually
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from contracts.topics import Topic
from tests.integration.chassis.path import (
    consuming,
    create_topic,
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
from tests.integration.chassis.service import NameIsTaken

HISTORY = 300


def replaying_slowly(database: str, kafka: str, **changes: float) -> ServiceSettings:
    """Return settings by which a replay of the history would take half a minute."""
    slow = {"replay_behind_events": 100, "replay_events_per_s": 10.0}
    return settings_for(database, kafka, chunk_max_events=20, **{**slow, **changes})


async def a_history(kafka: str, partitions: int = 1) -> tuple[Topic, Sequence[UUID]]:
    """Publish a history of ten events a subject."""
    topic = topic_of_its_own(partitions)
    await create_topic(kafka, topic)
    subjects = [uuid4() for _ in range(HISTORY // 10)]
    history = [signed_up(each, sequence) for sequence in range(1, 11) for each in subjects]
    await publish(kafka, topic, history)
    return topic, subjects


async def at_the_end(engine: Database, topic: Topic, name: str = "test.sibling") -> None:
    """Have a subscriber begin behind the history."""
    sibling = subscriber(name, topic, starts=Start.NOW)
    async with engine.begin() as connection:
        await begin(connection, [sibling], topic.name, {0: (0, HISTORY)}, utc_now)


async def sequences(database: str, name: str) -> dict[str, list[int]]:
    found = await rows(
        database,
        "SELECT subject, array_agg(sequence ORDER BY position) s FROM effects"
        " WHERE subscriber = $1 GROUP BY 1",
        name,
    )
    return {row["subject"]: row["s"] for row in found}


async def handled_by(database: str, name: str) -> int:
    [row] = await rows(database, "SELECT count(*) n FROM effects WHERE subscriber = $1", name)
    return int(row["n"])


def replaying(topic: Topic, name: str) -> float | None:
    labels = {"subscriber": name, "topic": topic.name}
    return REGISTRY.get_sample_value("consumer_replaying", labels)


class TestWhileOneReplays:
    async def test_the_others_handle_new_events_at_once(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic, subjects = await a_history(kafka)
        await at_the_end(engine, topic)
        both = [subscriber("test.sibling", topic), subscriber("test.new", topic)]

        async with consuming(
            replaying_slowly(database, kafka), engine, both, service=topic.name
        ) as worker:
            await until_well(worker)
            await eventually(lambda: self._has_begun(database))
            await publish(kafka, topic, [signed_up(each, 11) for each in subjects])
            await eventually(lambda: self._are_handled(database, len(subjects)))
            replayed = await handled_by(database, "test.new")

        assert 0 < replayed < HISTORY / 2

    async def _has_begun(self, database: str) -> bool:
        return await handled_by(database, "test.new") > 0

    async def _are_handled(self, database: str, number: int) -> bool:
        return await handled_by(database, "test.sibling") == number

    async def test_it_handles_all_in_order_and_once_and_then_goes_with_the_others(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic, subjects = await a_history(kafka)
        await at_the_end(engine, topic)
        both = [subscriber("test.sibling", topic), subscriber("test.new", topic)]
        settings = replaying_slowly(database, kafka, replay_events_per_s=200)

        async with consuming(settings, engine, both, service=topic.name) as worker:
            await until_well(worker)
            for sequence in (11, 12, 13):
                await publish(kafka, topic, [signed_up(each, sequence) for each in subjects])
            await until_handled(database, HISTORY + 6 * len(subjects))

            async def has_caught_up() -> bool:
                return replaying(topic, "test.new") == 0

            await eventually(has_caught_up)
            await publish(kafka, topic, [signed_up(each, 14) for each in subjects])
            await until_handled(database, HISTORY + 8 * len(subjects))

        all_of_them = {str(each): list(range(1, 15)) for each in subjects}
        assert await sequences(database, "test.new") == all_of_them
        assert await sequences(database, "test.sibling") == {
            each: numbers[10:] for each, numbers in all_of_them.items()
        }

    async def test_no_more_than_two_read_at_a_time(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic, _ = await a_history(kafka)
        await at_the_end(engine, topic)
        new = [f"test.new-{number}" for number in range(4)]
        all_of_them = [subscriber(each, topic) for each in ("test.sibling", *new)]
        settings = replaying_slowly(database, kafka)

        async def replayed() -> list[int]:
            return sorted([await handled_by(database, each) for each in new])

        async def two_have_got_on() -> bool:
            return (await replayed())[-2] >= HISTORY / 5

        async with consuming(settings, engine, all_of_them, service=topic.name):
            await eventually(two_have_got_on)
            assert (await replayed())[:2] == [0, 0]
            assert [replaying(topic, each) for each in new] == [1, 1, 1, 1]


class TestAReplayBegins:
    async def test_where_an_operator_moves_progress_back_and_ends_where_it_is_paused(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic, subjects = await a_history(kafka)
        for name in ("test.sibling", "test.back"):
            await at_the_end(engine, topic, name)
        both = [subscriber(name, topic) for name in ("test.sibling", "test.back")]

        async def is_replaying() -> bool:
            return replaying(topic, "test.back") == 1

        async def is_not_replaying() -> bool:
            return replaying(topic, "test.back") == 0

        async with consuming(
            replaying_slowly(database, kafka), engine, both, service=topic.name
        ) as worker:
            await until_well(worker)
            back = "UPDATE progress SET next_offset = 0 WHERE subscriber = 'test.back'"
            await rows(database, back)
            await eventually(is_replaying)
            await publish(kafka, topic, [signed_up(subjects[0], 11)])
            await eventually(lambda: self._has_handled_one(database))
            assert await handled_by(database, "test.back") < HISTORY / 2

            pause = "UPDATE progress SET paused_at = now() WHERE subscriber = 'test.back'"
            await rows(database, pause)
            await eventually(is_not_replaying)
            await rows(database, "UPDATE progress SET paused_at = NULL")
            await eventually(is_replaying)

    async def _has_handled_one(self, database: str) -> bool:
        return await handled_by(database, "test.sibling") == 1

    async def test_with_an_attempt_of_its_subscriber(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic, _ = await a_history(kafka)
        await at_the_end(engine, topic)
        began, go_on = asyncio.Event(), asyncio.Event()

        async def wait(_event: IntegrationEvent, _envelope: Envelope) -> None:
            began.set()
            await go_on.wait()

        both = [subscriber("test.sibling", topic), subscriber("test.new", topic, before=wait)]
        async with consuming(replaying_slowly(database, kafka), engine, both, service=topic.name):
            await asyncio.wait_for(began.wait(), 30)
            attempts = await rows(
                database, 'SELECT subscriber, "offset" FROM tries WHERE count > 0'
            )
            go_on.set()

        assert ("test.new", 0) in [tuple(each) for each in attempts]

    async def test_and_parks_what_can_not_be_handled(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic, subjects = await a_history(kafka)
        await at_the_end(engine, topic)

        async def refuse_one(_event: IntegrationEvent, envelope: Envelope) -> None:
            if envelope.subject == str(subjects[0]):
                raise NameIsTaken("taken")

        both = [subscriber("test.sibling", topic), subscriber("test.new", topic, before=refuse_one)]
        settings = replaying_slowly(database, kafka, replay_events_per_s=1_000)

        async with consuming(settings, engine, both, service=topic.name):
            await until_handled(database, HISTORY - 10)

        parked = await rows(database, 'SELECT subscriber, sequence FROM parked ORDER BY "offset"')
        assert [tuple(row) for row in parked] == [("test.new", n) for n in range(1, 11)]

    async def test_and_is_held_where_kafka_no_longer_has_the_history(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic, subjects = await a_history(kafka)
        await at_the_end(engine, topic)
        both = [subscriber("test.sibling", topic), subscriber("test.new", topic)]

        async with consuming(
            replaying_slowly(database, kafka), engine, both, service=topic.name
        ) as worker:
            await until_well(worker)
            async with admin_client(kafka) as client:
                before = RecordsToDelete(before_offset=HISTORY)
                await client.delete_records({TopicPartition(topic.name, 0): before})
            await until_reports(worker, f"test.new held at {topic.name}[0]")
            await publish(kafka, topic, [signed_up(subjects[0], 11)])

            async def is_handled() -> bool:
                return await handled_by(database, "test.sibling") == 1

            await eventually(is_handled)
