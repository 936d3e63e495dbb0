"""Subscribers are shown, paused, resumed and restarted while they run, and lose nothing."""

import asyncio
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Iterator,
    MutableMapping,
    Sequence,
)
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from aiokafka import TopicPartition
from prometheus_client import REGISTRY
from sqlalchemy import delete

from chassis.consuming.faust_app import consumer_of
from chassis.consuming.offsets import begin
from chassis.consuming.subscribers import EventSubscriber
from chassis.operations import context as context_module
from chassis.operations import offsets
from chassis.operations.acts import NoInput
from chassis.operations.offsets import OfSubscriber, ProgressBody, SubscriberBody
from chassis.operations.operator_log import subject_of_subscriber
from chassis.persistence.database import Connection, Database
from chassis.testing import eventually
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from contracts.operations import SubscriberPausedV1, SubscriberRestartedV1, SubscriberResumedV1
from contracts.topics import Topic
from tests.integration.chassis.path import (
    PathWork,
    consuming,
    count,
    create_topic,
    effects,
    publish,
    rows,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
    until_reports,
    until_well,
    utc_now,
)
from tests.integration.chassis.service import TOPIC, Failing, NameIsTaken, Service, sign_ups

from .operating import BY_ADA, acts_of, asking, runtime_of, service_of

ONE, TWO = "test.one", "test.two"


@pytest.fixture
async def topic(kafka: str) -> Topic:
    topic = topic_of_its_own(2)
    await create_topic(kafka, topic)
    return topic


def restartable(
    name: str,
    topic: Topic,
    before: Callable[[IntegrationEvent, Envelope], Awaitable[None]] | None = None,
) -> EventSubscriber[PathWork]:
    async def empty(connection: Connection) -> None:
        await connection.execute(delete(effects).where(effects.c.subscriber == name))

    return replace(subscriber(name, topic, before=before), empty_state=empty)


class Gate:
    """Blocks a handler until the test lets it continue."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, _event: IntegrationEvent, _envelope: Envelope) -> None:
        self.began.set()
        await self.let_go.wait()


class Office:
    """What an operator does to these subscribers, and its effects."""

    def __init__(
        self,
        database: str,
        kafka: str,
        engine: Database,
        topic: Topic,
        *subscribers: EventSubscriber[PathWork],
    ) -> None:
        self.topic = topic
        self.subscribers = subscribers
        self.settings = settings_for(database, kafka)
        self.runtime = runtime_of(service_of(topic, subscribers), self.settings, engine)
        self._database = database
        self._engine = engine

    def consuming(self) -> Any:
        return consuming(self.settings, self._engine, self.subscribers, service=self.topic.name)

    async def publish(self, subjects: Sequence[UUID], *sequences: int) -> None:
        events = [signed_up(each, number) for number in sequences for each in subjects]
        await publish(self.settings.kafka_bootstrap, self.topic, events)

    async def pause(self, name: str) -> None:
        await offsets.pause(self.runtime, self._subscriber(name), BY_ADA)

    async def resume(self, name: str) -> None:
        await offsets.resume(self.runtime, self._subscriber(name), BY_ADA)

    async def restart(self, name: str) -> None:
        await offsets.restart(self.runtime, self._subscriber(name), BY_ADA)

    def _subscriber(self, name: str) -> OfSubscriber:
        return OfSubscriber(subscriber=name, topic=self.topic.name)

    async def progress(self) -> ProgressBody:
        return await offsets.show(self.runtime, NoInput())

    async def look(self, name: str) -> SubscriberBody:
        [found] = [each for each in (await self.progress()).subscribers if each.subscriber == name]
        return found

    async def order(self, name: str) -> dict[str, list[int]]:
        """Return the sequences that each subject's effects have, in their order."""
        query = (
            "SELECT subject, array_agg(sequence ORDER BY position) AS s FROM effects"
            " WHERE subscriber = $1 GROUP BY 1"
        )
        return {row["subject"]: row["s"] for row in await rows(self._database, query, name)}

    async def until_handled(
        self, name: str, subjects: Sequence[UUID], *sequences: int, within_s: float = 30
    ) -> None:
        wanted = {str(each): list(sequences) for each in subjects}

        async def it_is() -> bool:
            return await self.order(name) == wanted

        await eventually(it_is, within_s=within_s)


SUBJECTS = [uuid4() for _ in range(20)]


class TestLooking:
    async def test_shows_offsets_lag_and_what_is_parked(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        failing = subscriber(ONE, topic, before=self._fail)
        office = Office(database, kafka, engine, topic, failing)
        async with office.consuming() as worker:
            await until_well(worker)
            await office.publish(SUBJECTS[:3], 1)

            async def all_are_parked() -> bool:
                return await count(database, "parked") == 3

            await eventually(all_are_parked)
        await office.publish(SUBJECTS, 2)

        found = await office.look(ONE)

        assert (found.parked, found.paused_since, found.restartable) == (3, None, False)
        assert found.lag == sum(each.lag or 0 for each in found.partitions) == 20
        assert sum(each.next_offset for each in found.partitions) == 3
        assert sum(each.end or 0 for each in found.partitions) == 23

    async def _fail(self, _event: IntegrationEvent, _envelope: Envelope) -> None:
        raise NameIsTaken

    async def test_while_kafka_is_unreachable_shows_offsets_and_why_no_lag_is_known(
        self, database: str, engine: Database
    ) -> None:
        topic = topic_of_its_own()
        one = subscriber(ONE, topic)
        async with engine.begin() as connection:
            await begin(connection, [one], topic.name, {0: (0, 9), 1: (4, 9)}, utc_now)
        office = Office(database, "127.0.0.1:1", engine, topic, one)

        body = await office.progress()

        assert (body.kafka or "").startswith("Kafka does not answer: ")
        [found] = body.subscribers
        assert found.lag is None
        places = [(each.partition, each.next_offset, each.lag) for each in found.partitions]
        assert places == [(0, 0, None), (1, 4, None)]

    async def test_one_that_was_never_run_has_no_partitions(
        self, database: str, kafka: str, engine: Database, topic: Topic
    ) -> None:
        office = Office(database, kafka, engine, topic, restartable(ONE, topic))

        found = await office.look(ONE)

        assert (found.partitions, found.lag, found.restartable) == ([], None, True)


Logged = Sequence[MutableMapping[str, Any]]


@pytest.fixture
def logged() -> Iterator[Logged]:
    with structlog.testing.capture_logs() as lines:
        yield lines


class TestPausing:
    async def test_one_lets_the_others_continue_and_resumed_it_misses_nothing(
        self, database: str, engine: Database, kafka: str, topic: Topic, logged: Logged
    ) -> None:
        office = Office(
            database, kafka, engine, topic, subscriber(ONE, topic), subscriber(TWO, topic)
        )
        async with office.consuming() as worker:
            await until_well(worker)
            await office.publish(SUBJECTS, 1)
            await office.until_handled(ONE, SUBJECTS, 1)
            await office.until_handled(TWO, SUBJECTS, 1)

            await office.pause(TWO)
            await office.publish(SUBJECTS, 2)
            await office.until_handled(ONE, SUBJECTS, 1, 2)
            await until_reports(worker, f"{TWO} is paused at {topic.name}")
            await office.publish(SUBJECTS, 3)
            await office.until_handled(ONE, SUBJECTS, 1, 2, 3)
            paused = await office.look(TWO)
            assert await office.order(TWO) == {str(each): [1] for each in SUBJECTS}
            labels = {"subscriber": TWO, "topic": topic.name}

            async def lag_is_seen() -> bool:
                lags = [
                    REGISTRY.get_sample_value("consumer_lag", labels | {"partition": each})
                    for each in ("0", "1")
                ]
                return sum(each or 0 for each in lags) == 40

            await eventually(lag_is_seen)

            # No new chunk comes that would be refused.
            await office.resume(TWO)
            await office.until_handled(TWO, SUBJECTS, 1, 2, 3, within_s=20)
            await until_well(worker)

        assert (paused.lag, paused.paused_since is not None) == (40, True)
        assert await office.order(ONE) == {str(each): [1, 2, 3] for each in SUBJECTS}
        subject = str(subject_of_subscriber(TWO, topic.name))
        assert await acts_of(database) == [
            (SubscriberPausedV1.event_type, subject, 1),
            (SubscriberResumedV1.event_type, subject, 2),
        ]
        changes = [line for line in logged if str(line["event"]).startswith("subscriber-")]
        assert [(line["event"], line["subscriber"], line["topic"]) for line in changes] == [
            ("subscriber-paused", TWO, topic.name),
            ("subscriber-resumed", TWO, topic.name),
        ]

    async def test_all_of_them_lets_events_wait(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        office = Office(
            database, kafka, engine, topic, subscriber(ONE, topic), subscriber(TWO, topic)
        )
        async with office.consuming() as worker:
            await until_well(worker)
            await office.pause(ONE)
            await office.publish(SUBJECTS, 1)
            await office.until_handled(TWO, SUBJECTS, 1)
            await office.pause(TWO)
            await office.publish(SUBJECTS, 2)
            await until_reports(worker, f"{ONE} is paused")
            await until_reports(worker, f"{TWO} is paused")
            assert await office.order(ONE) == {}
            assert await office.order(TWO) == {str(each): [1] for each in SUBJECTS}

            await office.resume(TWO)
            await office.until_handled(TWO, SUBJECTS, 1, 2, within_s=20)
            await office.resume(ONE)
            await office.until_handled(ONE, SUBJECTS, 1, 2, within_s=20)

        assert await office.order(TWO) == {str(each): [1, 2] for each in SUBJECTS}
        assert await rows(database, "SELECT * FROM tries WHERE count > 0") == []

    async def test_outlives_the_process(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        office = Office(
            database, kafka, engine, topic, subscriber(ONE, topic), subscriber(TWO, topic)
        )
        async with office.consuming() as worker:
            await until_well(worker)
            await office.pause(TWO)
        await office.publish(SUBJECTS, 1)

        async with office.consuming() as worker:
            await office.until_handled(ONE, SUBJECTS, 1)
            await until_reports(worker, f"{TWO} is paused")
            assert await office.order(TWO) == {}
            # It is not read again from where the paused one is.
            everywhere = frozenset(TopicPartition(topic.name, each) for each in range(2))
            consumer = consumer_of(worker.worker._watchdog._app)
            begin = await worker.worker._start_positions.find(everywhere, consumer)
            assert sum(each.offset for each in begin.values()) == 20
            await office.resume(TWO)
            await office.until_handled(TWO, SUBJECTS, 1, within_s=20)

        assert await office.order(ONE) == {str(each): [1] for each in SUBJECTS}

    async def test_waits_for_the_chunk_in_progress(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        gate = Gate()
        office = Office(database, kafka, engine, topic, subscriber(ONE, topic, before=gate))
        async with office.consuming():
            await office.publish(SUBJECTS[:1], 1)
            await gate.began.wait()

            pausing = asyncio.create_task(office.pause(ONE))
            await asyncio.wait([pausing], timeout=1)
            assert not pausing.done()

            gate.let_go.set()
            await pausing
            assert await office.order(ONE) == {str(SUBJECTS[0]): [1]}

    async def test_twice_is_no_second_act(self, database: str, engine: Database) -> None:
        topic = topic_of_its_own()
        one = subscriber(ONE, topic)
        async with engine.begin() as connection:
            await begin(connection, [one], topic.name, {0: (0, 0)}, utc_now)
        office = Office(database, "127.0.0.1:1", engine, topic, one)

        await office.resume(ONE)
        await office.pause(ONE)
        await office.pause(ONE)

        assert [type_ for type_, _, _ in await acts_of(database)] == [SubscriberPausedV1.event_type]

    async def test_holds_for_a_partition_that_is_added(
        self, database: str, engine: Database
    ) -> None:
        topic = topic_of_its_own()
        one, two = subscriber(ONE, topic), subscriber(TWO, topic)
        office = Office(database, "127.0.0.1:1", engine, topic, one, two)
        async with engine.begin() as connection:
            await begin(connection, [one, two], topic.name, {0: (0, 0)}, utc_now)
        await office.pause(ONE)

        async with engine.begin() as connection:
            bounds = {0: (0, 0), 1: (0, 0)}
            standings = await begin(connection, [one, two], topic.name, bounds, utc_now)

        paused = {(each.subscriber, each.tp.partition) for each in standings if each.paused}
        assert paused == {(ONE, 0), (ONE, 1)}


class TestPausedBetweenTwoEvents:
    """The chunk is handled event by event, because it failed as a whole."""

    async def test_it_handles_no_more_of_the_chunk_and_no_attempt_counts_against_the_next(
        self, database: str, engine: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = Service(database, engine)
        records = sign_ups(4)
        failing = Failing(LookupError, records[1], times=1)
        one, two = subscriber(ONE, TOPIC, before=failing), subscriber(TWO, TOPIC)
        office = Office(database, "127.0.0.1:1", engine, TOPIC, one, two)
        consumer = await service.processor(one, two)
        begin_attempt = consumer._attempts.begin

        async def pause_before_the_third(*arguments: Any) -> Any:
            attempt = await begin_attempt(*arguments)
            if (attempt.subscriber, attempt.offset) == (ONE, 2):
                await office.pause(ONE)
            return attempt

        monkeypatch.setattr(consumer._attempts, "begin", pause_before_the_third)
        await service.process(consumer, records)

        assert len(await service.handled(ONE)) == 2
        assert len(await service.handled(TWO)) == 4
        assert (await service.next_offset(ONE), await service.next_offset(TWO)) == (2, 4)
        assert await service.open_attempts() == []


class TestRestarting:
    async def test_empties_its_state_and_handles_all_again_once_though_nothing_new_comes(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        seen: Counter[str] = Counter()

        async def note(_event: IntegrationEvent, envelope: Envelope) -> None:
            seen[str(envelope.id)] += 1

        office = Office(
            database, kafka, engine, topic, subscriber(ONE, topic), restartable(TWO, topic, note)
        )
        async with office.consuming() as worker:
            await until_well(worker)
            await office.publish(SUBJECTS, 1, 2)
            await office.until_handled(ONE, SUBJECTS, 1, 2)
            await office.until_handled(TWO, SUBJECTS, 1, 2)

            await office.restart(TWO)

            await eventually(lambda: _all_are(seen, 2), within_s=20)
            await office.until_handled(TWO, SUBJECTS, 1, 2)
            await office.publish(SUBJECTS, 3)
            await office.until_handled(TWO, SUBJECTS, 1, 2, 3)
            await office.until_handled(ONE, SUBJECTS, 1, 2, 3)

        assert await acts_of(database) == [
            (
                SubscriberRestartedV1.event_type,
                str(subject_of_subscriber(TWO, topic.name)),
                1,
            )
        ]

    async def test_waits_for_the_chunk_in_progress_and_counts_it_once(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        gate = Gate()
        office = Office(database, kafka, engine, topic, restartable(ONE, topic, gate))
        async with office.consuming() as worker:
            await until_well(worker)
            await office.publish(SUBJECTS, 1)
            await gate.began.wait()

            restarting = asyncio.create_task(office.restart(ONE))
            await asyncio.wait([restarting], timeout=1)
            assert not restarting.done()

            gate.let_go.set()
            await restarting
            await office.publish(SUBJECTS, 2)
            await office.until_handled(ONE, SUBJECTS, 1, 2)

        assert await count(database) == 40

    async def test_under_load_has_every_effect_once_and_in_order(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        office = Office(
            database, kafka, engine, topic, subscriber(ONE, topic), restartable(TWO, topic)
        )
        async with office.consuming() as worker:
            await until_well(worker)
            for number in range(1, 31):
                await office.publish(SUBJECTS, number)
                if number % 10 == 5:
                    await office.restart(TWO)
                if number % 10 == 7:
                    await office.pause(TWO)
                if number % 10 == 9:
                    await office.resume(TWO)
            await office.until_handled(ONE, SUBJECTS, *range(1, 31))
            await office.until_handled(TWO, SUBJECTS, *range(1, 31))

        assert await rows(database, "SELECT * FROM inbox_missing") == []
        assert await rows(database, "SELECT * FROM parked") == []

    async def test_deletes_what_it_parked_missed_and_attempted(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        failing = [True]

        async def fail(_event: IntegrationEvent, _envelope: Envelope) -> None:
            if failing:
                raise NameIsTaken

        office = Office(database, kafka, engine, topic, restartable(ONE, topic, fail))
        async with office.consuming() as worker:
            await until_well(worker)
            await office.publish(SUBJECTS, 1)
            await office.publish(SUBJECTS, 3)

            async def all_are_parked() -> bool:
                return await count(database, "parked") == 40

            await eventually(all_are_parked)
            await office.pause(ONE)
            await rows(
                database,
                "INSERT INTO tries"
                ' (subscriber, topic, topic_id, "partition", "offset", count, first_at, last_at)'
                " VALUES ($1, $2, $3, 0, 0, 4, now(), now())",
                ONE,
                topic.name,
                UUID(int=0),
            )
            failing.clear()

            await office.restart(ONE)

            left = [
                await count(database, f"{table} WHERE subscriber = '{ONE}'")
                for table in ("inbox", "inbox_missing", "parked", "tries")
            ]
            assert left == [0, 0, 0, 0]
            await office.resume(ONE)
            await office.until_handled(ONE, SUBJECTS, 1, 3)
        assert await rows(database, "SELECT * FROM parked") == []

    async def test_of_a_paused_one_leaves_it_paused(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        office = Office(database, kafka, engine, topic, restartable(ONE, topic))
        async with office.consuming() as worker:
            await until_well(worker)
            await office.publish(SUBJECTS, 1)
            await office.until_handled(ONE, SUBJECTS, 1)
            await office.pause(ONE)

            await office.restart(ONE)
            await until_reports(worker, f"{ONE} is paused")
            assert await office.order(ONE) == {}
            assert (await office.look(ONE)).lag == 20

            await office.resume(ONE)
            await office.until_handled(ONE, SUBJECTS, 1, within_s=20)

    async def test_is_done_whole_or_not_at_all(
        self,
        database: str,
        engine: Database,
        kafka: str,
        topic: Topic,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        office = Office(database, kafka, engine, topic, restartable(ONE, topic))
        async with office.consuming():
            await office.publish(SUBJECTS, 1)
            await office.until_handled(ONE, SUBJECTS, 1)

        async def fail(name: str) -> None:
            if name == "operations.before-commit":
                raise LookupError

        monkeypatch.setattr(context_module, "failpoint", fail)
        with pytest.raises(LookupError):
            await office.restart(ONE)

        assert (await office.look(ONE)).lag == 0
        assert await count(database) == 20


async def _all_are(seen: Counter[str], times: int) -> bool:
    return bool(seen) and set(seen.values()) == {times}


class TestOverHttp:
    async def test_a_subscriber_is_shown_paused_resumed_and_restarted(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        one = restartable(ONE, topic)
        async with engine.begin() as connection:
            await begin(connection, [one], topic.name, {0: (0, 0), 1: (0, 0)}, utc_now)
        office = Office(database, kafka, engine, topic, one)
        body = {"why": "a bad deploy", "subscriber": ONE, "topic": topic.name}

        async with asking(office.runtime) as client:
            done = [
                (await client.post(f"/ops/progress/{act}", json=body)).status_code
                for act in ("pause", "restart", "resume")
            ]
            shown = (await client.get("/ops/progress")).json()

        assert done == [204, 204, 204]
        assert shown["kafka"] is None
        assert [each["lag"] for each in shown["subscribers"]] == [0]
        assert [type_ for type_, _, _ in await acts_of(database)] == [
            SubscriberPausedV1.event_type,
            SubscriberRestartedV1.event_type,
            SubscriberResumedV1.event_type,
        ]

    @pytest.mark.parametrize(
        ("act", "changes", "status", "code"),
        [
            ("pause", {"subscriber": "test.unknown"}, 404, "no-such-subscriber"),
            ("resume", {"topic": "another"}, 404, "no-such-subscriber"),
            ("restart", {"topic": "another"}, 404, "no-such-subscriber"),
            ("pause", {"subscriber": TWO}, 409, "not-begun"),
            ("restart", {"subscriber": TWO}, 409, "not-restartable"),
            ("restart", {}, 503, "kafka-is-away"),
            ("pause", {"why": ""}, 422, "invalid-fields"),
            ("pause", {"topic": None}, 422, "invalid-fields"),
            ("restart", {"force": True}, 422, "invalid-fields"),
        ],
    )
    async def test_what_is_impossible_is_refused(
        self,
        database: str,
        engine: Database,
        act: str,
        changes: dict[str, Any],
        status: int,
        code: str,
    ) -> None:
        topic = topic_of_its_own()
        one = restartable(ONE, topic)
        async with engine.begin() as connection:
            await begin(connection, [one], topic.name, {0: (0, 0)}, utc_now)
        office = Office(database, "127.0.0.1:1", engine, topic, one, subscriber(TWO, topic))
        body = {"why": "x", "subscriber": ONE, "topic": topic.name} | changes

        async with asking(office.runtime) as client:
            answer = await client.post(f"/ops/progress/{act}", json=body)

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert await acts_of(database) == []

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/restart")],
    )
    async def test_only_an_operator_may(
        self, database: str, engine: Database, method: str, path: str
    ) -> None:
        office = Office(database, "127.0.0.1:1", engine, topic_of_its_own())
        body = {"why": "x", "subscriber": ONE, "topic": "t"} if method == "POST" else None

        async with asking(office.runtime) as client:
            by_user = await client.request(
                method, f"/ops/progress{path}", json=body, headers={"role": "user"}
            )
            by_stranger = await client.request(
                method, f"/ops/progress{path}", json=body, headers={"role": "none"}
            )

        assert (by_user.status_code, by_stranger.status_code) == (403, 401)
