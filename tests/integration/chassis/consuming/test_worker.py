"""Events go from Kafka into effects: each once, in order, from where progress says."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.errors import KafkaError
from mode.threads import WorkerThread
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chassis.backoff import Backoff
from chassis.consuming import (
    faust_app,
    faust_internals,
    positions,
    retries,
    retry_policy,
    watchdog,
)
from chassis.consuming.aggregates import Aggregates
from chassis.consuming.chunk_thread import ChunkThread
from chassis.consuming.dead_letters import Failure, ParkedSubject
from chassis.consuming.offsets import begin
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.records import Record
from chassis.consuming.subscribers import Outcome, Start
from chassis.consuming.watchdog import WorkerStalled
from chassis.kafka.client import admin_client
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import StaleAggregate
from chassis.testing import eventually
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from contracts.topics import Topic
from local_cluster.testing import RunningInfrastructure
from tests.integration.chassis.path import (
    PathWork,
    consuming,
    count,
    create_topic,
    one_consuming,
    publish,
    rows,
    schema,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
    until_handled,
    until_reports,
    until_well,
    utc_now,
)
from tests.integration.chassis.proxy import postgres_through_proxy
from tests.integration.chassis.service import NameIsTaken
from tests.integration.chassis.worker import until_it_works, worker_process


async def publish_some(kafka: str, topic: Topic, subjects: Sequence[UUID], *sequences: int) -> None:
    await publish(
        kafka, topic, [signed_up(each, number) for number in sequences for each in subjects]
    )


async def order(database: str) -> dict[str, list[int]]:
    found = await rows(
        database,
        "SELECT subject, array_agg(sequence ORDER BY position) s FROM effects GROUP BY 1",
    )
    return {row["subject"]: row["s"] for row in found}


class TestTheStraightPath:
    async def test_every_event_has_its_effect_once_and_in_order(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(50)]
        await publish_some(kafka, topic, subjects, 1, 2, 3)

        async with one_consuming(database, kafka, engine, topic):
            await until_handled(database, 150)

        assert await order(database) == {str(each): [1, 2, 3] for each in subjects}

    async def test_what_is_parked_is_counted_as_long_as_it_waits(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        name, topic = f"test.{uuid4().hex}", topic_of_its_own(1)
        await create_topic(kafka, topic)

        async def refuse(_event: IntegrationEvent, _envelope: Envelope) -> None:
            raise NameIsTaken("taken")

        def waiting() -> float | None:
            return REGISTRY.get_sample_value("consumer_parked_waiting", {"subscriber": name})

        async def are_three() -> bool:
            return waiting() == 3

        async def are_none() -> bool:
            return waiting() == 0

        async with consuming(
            settings_for(database, kafka),
            engine,
            [subscriber(name, topic, before=refuse)],
            service=topic.name,
        ):
            await publish_some(kafka, topic, [uuid4() for _ in range(3)], 1)
            await eventually(are_three)

            await rows(database, "DELETE FROM parked")
            await eventually(are_none)

    async def test_lag_and_kafkas_own_offsets_tell_how_far_it_is(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4() for _ in range(20)], 1)
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=topic.name)

        async with one_consuming(database, kafka, engine, topic):
            await until_handled(database, 20)

            async def no_lag() -> bool:
                labels = {"subscriber": "test.one", "topic": topic.name, "partition": "0"}
                return REGISTRY.get_sample_value("consumer_lag", labels) == 0

            await eventually(no_lag)
            await consumer.start()

            async def committed() -> bool:
                return bool(await consumer.committed(TopicPartition(topic.name, 0)) == 20)

            await eventually(committed)
            await consumer.stop()


class TestWhereItBegins:
    async def test_a_worker_that_is_started_again_continues_at_its_progress(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(30)]
        settings, one = settings_for(database, kafka), subscriber("test.one", topic)
        await publish_some(kafka, topic, subjects, 1)
        async with consuming(settings, engine, [one], service=topic.name):
            await until_handled(database, 30)

        await publish_some(kafka, topic, subjects, 2)
        async with consuming(settings, engine, [one], service=topic.name):
            await until_handled(database, 60)

        assert await order(database) == {str(each): [1, 2] for each in subjects}

    async def test_subscribers_added_later_begin_at_the_beginning_or_now_as_they_say(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(30)]
        settings, one = settings_for(database, kafka), subscriber("test.one", topic)
        await publish_some(kafka, topic, subjects, 1)
        async with consuming(settings, engine, [one], service=topic.name):
            await until_handled(database, 30)

        two = subscriber("test.two", topic)
        now = subscriber("test.now", topic, starts=Start.NOW)
        async with consuming(settings, engine, [one, two, now], service=topic.name) as worker:
            await until_well(worker)
            await until_handled(database, 60)
            await publish_some(kafka, topic, subjects, 2)
            await until_handled(database, 150)

        found = await rows(
            database, "SELECT subscriber, sequence, count(*) AS n FROM effects GROUP BY 1, 2"
        )
        assert {(row["subscriber"], row["sequence"]): row["n"] for row in found} == {
            ("test.one", 1): 30,
            ("test.one", 2): 30,
            ("test.two", 1): 30,
            ("test.two", 2): 30,
            ("test.now", 2): 30,
        }

    async def test_one_that_began_now_reads_a_partition_that_is_added_from_its_beginning(
        self, engine: Database
    ) -> None:
        one = subscriber("test.now", topic_of_its_own(), starts=Start.NOW)
        async with engine.begin() as connection:
            await begin(connection, [one], one.topic.name, {0: (0, 7), 1: (0, 9)}, utc_now)

        async with engine.begin() as connection:
            bounds = {0: (0, 20), 1: (0, 20), 2: (0, 5)}
            offsets = await begin(connection, [one], one.topic.name, bounds, utc_now)

        assert {each.tp.partition: each.next_offset for each in offsets} == {0: 7, 1: 9, 2: 0}

    async def test_a_worker_that_came_back_at_once_reads_partitions_that_are_added_then(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(partitions=1)
        await create_topic(kafka, topic)
        settings, one = settings_for(database, kafka), subscriber("test.one", topic)
        for _ in range(2):
            async with consuming(settings, engine, [one], service=topic.name) as worker:
                await until_well(worker)
        async with consuming(settings, engine, [one], service=topic.name) as worker:
            await until_well(worker)

            async with admin_client(kafka) as client:
                await client.create_partitions({topic.name: NewPartitions(3)})
            await publish(kafka, topic, [signed_up(uuid4(), 1)], partition=2)

            await until_reports(worker, f"no worker has {topic.name}[1], {topic.name}[2]")
            await until_handled(database, 1)
            await until_well(worker)

    async def test_a_topic_that_is_shorter_than_progress_is_not_read_and_reported(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4()], 1, 2, 3)
        one = subscriber("test.one", topic)
        async with engine.begin() as connection:
            await begin(connection, [one], topic.name, {0: (500, 500)}, utc_now)

        async with consuming(
            settings_for(database, kafka), engine, [one], service=topic.name
        ) as worker:
            reason = f"{topic.name}[0] holds 0 to 3, and progress is at 500"
            await until_reports(worker, reason, within_s=60)

        assert await count(database) == 0

    async def test_a_topic_whose_beginning_was_deleted_is_not_read_and_reported(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4()], 1, 2, 3)
        one = subscriber("test.one", topic)
        async with engine.begin() as connection:
            await begin(connection, [one], topic.name, {0: (1, 3)}, utc_now)
        await self._delete_before(kafka, topic, 2)

        async with consuming(
            settings_for(database, kafka), engine, [one], service=topic.name
        ) as worker:
            await until_reports(worker, f"{topic.name}[0] holds 2 to 3, and progress is at 1")

    async def _delete_before(self, kafka: str, topic: Topic, offset: int) -> None:
        async with admin_client(kafka) as client:
            await client.delete_records(
                {TopicPartition(topic.name, 0): RecordsToDelete(before_offset=offset)}
            )


class TestOddRecords:
    async def test_are_parked_as_they_came_and_hold_up_no_others(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        odd: list[tuple[bytes | None, bytes | None, list[Any]]] = [
            (b"k", None, []),  # a tombstone
            (None, b"not json", []),
            (b"", b"{}", [("type", b"x"), ("id", None)]),
            (b"\xff", b"\xff" * 500_000, [("content-type", b"application/cloudevents+json")]),
        ]
        events = [signed_up(uuid4(), 1) for _ in odd]
        producer = AIOKafkaProducer(bootstrap_servers=kafka)
        await producer.start()
        for (key, value, headers), event in zip(odd, events, strict=True):
            await producer.send_and_wait(topic.name, value, key, headers=headers)
            await producer.send_and_wait(
                topic.name, event.payload, event.key, headers=event.headers
            )
        await producer.stop()

        async with one_consuming(database, kafka, engine, topic):
            await until_handled(database, len(odd))

        kept = await rows(database, 'SELECT * FROM parked ORDER BY "offset"')
        assert [(row["key"], row["payload"]) for row in kept] == [each[:2] for each in odd]
        assert {row["reason"] for row in kept} == {"not-understood"}


class TestSeveralWorkers:
    async def test_share_the_partitions_and_take_over_from_one_that_is_killed(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(4)
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(40)]
        producing = asyncio.create_task(self._produce(kafka, topic, subjects))
        async with (
            worker_process(database, kafka, topic, "a") as first,
            worker_process(database, kafka, topic, "b") as second,
        ):
            await until_it_works(first)
            await until_it_works(second)
            await eventually(self._handled(database, 400))
            first.kill()
            await first.wait()
            async with worker_process(database, kafka, topic, "c") as third:
                await until_it_works(third)
                await eventually(self._handled(database, 1_200), within_s=60)
                third.send_signal(signal.SIGTERM)
                assert await third.wait() == 0
                await producing
                await eventually(self._handled(database, 2_000), within_s=60)

        assert await order(database) == {str(each): list(range(1, 51)) for each in subjects}
        assert await rows(database, "SELECT * FROM inbox_missing") == []
        assert await rows(database, "SELECT * FROM parked") == []

    async def _produce(self, kafka: str, topic: Topic, subjects: Sequence[UUID]) -> None:
        for number in range(1, 51):
            await publish_some(kafka, topic, subjects, number)
            await asyncio.sleep(0.2)  # the load goes on while workers come and go

    def _handled(self, database: str, number: int) -> Callable[[], Any]:
        async def so_many() -> bool:
            return await count(database) >= number

        return so_many

    async def test_of_one_name_work_one_after_the_other(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        settings, one = settings_for(database, kafka), subscriber("test.one", topic)
        async with consuming(settings, engine, [one], service=topic.name) as first:
            await until_well(first)
            async with consuming(settings, engine, [one], service=topic.name) as second:
                await publish_some(kafka, topic, [uuid4()], 1)
                await until_handled(database, 1)
                name = settings.worker_name
                assert second.worker.trouble() == f"another process has the worker name {name}"

                await first.worker.stop()

                await until_well(second)
                await publish_some(kafka, topic, [uuid4()], 1)
                await until_handled(database, 2)


class Unkeepable:
    """A subscriber that can't even park."""

    nobody_waits = False
    starts = Start.BEGINNING
    name = "test.one"

    def __init__(self, topic: Topic) -> None:
        self.topic = topic

    def aggregates_in(
        self, records: Sequence[Record]
    ) -> Iterable[tuple[Aggregates[PathWork], Iterable[Any]]]:
        return ()

    async def take(
        self,
        work: PathWork,
        connection: Connection,
        records: Sequence[Record],
        now: object,
        failure: Failure | None = None,
    ) -> Sequence[ParkedSubject]:
        raise LookupError

    async def take_parked(self, *_: object, **__: object) -> Outcome | Failure:
        raise LookupError


class TestTheWatch:
    async def test_ends_when_faust_crashed(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(first_s=0.01, longest_s=0.01))
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4()], 1)
        worker = consuming(
            settings_for(database, kafka), engine, [Unkeepable(topic)], service=topic.name
        )

        with pytest.raises(WorkerStalled):
            async with worker as running:
                await asyncio.wait([running.task], timeout=30)

    async def test_ends_when_it_may_not_join_the_group(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Below what the broker allows: aiokafka logs the refusal once, and idles for ever.
        monkeypatch.setattr(watchdog, "_JOIN_WITHIN_S", 3)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        worker = consuming(
            settings_for(database, kafka, kafka_session_timeout_s=0.5),
            engine,
            [subscriber("test.one", topic)],
            service=topic.name,
        )

        with pytest.raises(WorkerStalled):
            async with worker as running:
                await asyncio.wait([running.task], timeout=30)

    async def test_ends_when_a_partition_does_not_move_although_there_is_more(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hang(*_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(positions, "STUCK_AFTER_S", 2)
        monkeypatch.setattr(ChunkProcessor, "process", hang)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4()], 1)
        worker = one_consuming(database, kafka, engine, topic)

        with pytest.raises(WorkerStalled, match="no progress"):
            async with worker as running:
                await asyncio.wait([running.task], timeout=30)

    async def test_keeps_a_worker_whose_partition_is_tried_again_however_long_that_takes(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(positions, "STUCK_AFTER_S", 0.5)
        monkeypatch.setattr(retries, "_SHOW_CONTENTION_AFTER_S", 0)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4()], 1)

        async def in_the_way(*_: object) -> None:
            raise StaleAggregate

        async with consuming(
            settings_for(database, kafka),
            engine,
            [subscriber("test.one", topic, before=in_the_way)],
            service=topic.name,
        ) as running:

            async def is_tried_again() -> bool:
                return "StaleAggregate" in (running.worker.trouble() or "")

            await eventually(is_tried_again)
            stopped, _ = await asyncio.wait([running.task], timeout=3)

        assert not stopped

    async def test_ends_although_the_consumer_thread_does_not(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        may_end = threading.Event()

        async def hang(_thread: ChunkThread) -> None:
            await asyncio.to_thread(may_end.wait)

        monkeypatch.setattr(faust_app, "_STOP_WITHIN_S", 1)
        monkeypatch.setattr(ChunkThread, "_gather_remaining_tasks", hang)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic) as worker:
            await until_well(worker)

            await worker.worker.stop()
            ended, _ = await asyncio.wait([worker.task], timeout=30)

            may_end.set()
            assert ended

    async def test_answers_the_consumer_thread_while_that_ends(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers: list[str] = []

        async def ask(thread: ChunkThread) -> None:
            asked = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "yes"), thread.parent_loop)
            try:
                answers.append(await asyncio.wait_for(asyncio.wrap_future(asked), 5))
            except TimeoutError:
                answers.append("none")

        monkeypatch.setattr(ChunkThread, "_gather_remaining_tasks", ask)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic) as worker:
            await until_well(worker)

        assert answers == ["yes"]

    async def test_stops_a_worker_when_it_has_started_lest_its_thread_is_left(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        starting = threading.Event()
        run = ChunkThread.Worker.run

        def run_late(thread: Any) -> None:
            starting.set()
            time.sleep(0.5)
            run(thread)

        monkeypatch.setattr(ChunkThread.Worker, "run", run_late)
        topic = topic_of_its_own()
        await create_topic(kafka, topic)

        async def no_thread_is_left() -> bool:
            return not any(isinstance(each, WorkerThread) for each in threading.enumerate())

        with capture_logs() as logged:
            async with one_consuming(database, kafka, engine, topic):
                assert await asyncio.to_thread(starting.wait, 10)

        assert "faust-did-not-stop" not in [each["event"] for each in logged]
        await eventually(no_thread_is_left)

    async def test_ends_at_once_with_libraries_that_are_not_known(
        self, database: str, engine: Database, kafka: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(faust_internals._VERSIONS, "aiokafka", "0.0.1")
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        worker = one_consuming(database, kafka, engine, topic)

        with pytest.raises(RuntimeError, match="aiokafka is"):
            async with worker as running:
                await asyncio.wait([running.task], timeout=30)

    async def test_ends_when_start_positions_can_not_be_found_for_an_unknown_reason(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        await rows(database, "DROP TABLE progress")
        worker = one_consuming(database, kafka, engine, topic)

        with pytest.raises(WorkerStalled):
            async with worker as running:
                await asyncio.wait([running.task], timeout=30)


class TestWhatIsAway:
    async def test_a_missing_topic_is_waited_for_and_reported(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        async with one_consuming(database, kafka, engine, topic) as worker:
            await until_reports(worker, f"topic {topic.name} is missing")

            await create_topic(kafka, topic)
            await publish_some(kafka, topic, [uuid4()], 1)

            await until_handled(database, 1)

    async def test_the_database_is_waited_for_while_start_positions_are_read(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4()], 1)
        async with postgres_through_proxy(database) as (url, proxy), schema(url) as through:
            away = asyncio.Event()

            async def no_progress(data: bytes) -> bool:
                return b"progress" not in data or away.is_set()

            proxy.on_request = no_progress
            async with consuming(
                settings_for(database, kafka),
                through,
                [subscriber("test.one", topic)],
                service=topic.name,
            ) as worker:
                await until_reports(worker, "where to read on is not known")

                away.set()

                await until_handled(database, 1)
                await until_well(worker)

    async def test_the_database_does_not_keep_a_worker_from_stopping(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        async with (
            postgres_through_proxy(database) as (url, proxy),
            schema(url) as through,
            consuming(
                settings_for(url, kafka),
                through,
                [subscriber("test.one", topic)],
                service=topic.name,
            ) as worker,
        ):
            await until_well(worker)
            await proxy.refuse()
            await publish_some(kafka, topic, [uuid4()], 1)
            await until_reports(worker, "is tried again")

            await worker.worker.stop()

            async with asyncio.timeout(20):
                await worker.task

        assert await count(database) == 0

    async def test_a_handler_in_progress_does_not_keep_a_worker_from_stopping(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)
        await publish_some(kafka, topic, [uuid4()], 1)
        began = asyncio.Event()

        async def wait(_event: IntegrationEvent, _envelope: Envelope) -> None:
            began.set()
            await asyncio.sleep(60)

        async with consuming(
            settings_for(database, kafka),
            engine,
            [subscriber("test.one", topic, before=wait)],
            service=topic.name,
        ) as worker:
            await began.wait()

            await worker.worker.stop()

            async with asyncio.timeout(20):
                await worker.task
        assert await count(database) == 0
        assert await rows(database, "SELECT * FROM tries WHERE count > 0") == []

    async def test_kafka_s_absence_is_reported_although_there_was_nothing_to_fetch(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure
    ) -> None:
        kafka, topic = own_kafka.kafka_bootstrap, topic_of_its_own()
        await create_topic(kafka, topic)
        async with one_consuming(database, kafka, engine, topic) as worker:
            await until_well(worker)

            await asyncio.to_thread(own_kafka.stop, "kafka")
            try:
                await until_reports(worker, "Kafka does not answer")
            finally:
                await asyncio.to_thread(own_kafka.resume, "kafka")

            await until_well(worker)

    async def test_kafka_is_waited_for_and_nothing_is_lost_or_doubled(
        self, database: str, engine: Database, own_kafka: RunningInfrastructure
    ) -> None:
        kafka, topic = own_kafka.kafka_bootstrap, topic_of_its_own()
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(20)]
        async with one_consuming(database, kafka, engine, topic) as worker:
            await publish_some(kafka, topic, subjects, 1)
            await until_handled(database, 20)

            own_kafka.kill("kafka", signal.SIGKILL)  # and started again by its supervisor
            events = [signed_up(each, 2) for each in subjects]

            async def they_are_published() -> bool:
                await publish(kafka, topic, events)
                return True

            await eventually(they_are_published, despite=(KafkaError,))
            await until_handled(database, 40)
            await until_well(worker)

        assert await order(database) == {str(each): [1, 2] for each in subjects}
