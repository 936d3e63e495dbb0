"""A subscriber replays a million records, and the other one handles what is new meanwhile."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from chassis.consuming.offsets import begin
from chassis.consuming.subscribers import Start
from chassis.persistence.database import Database
from chassis.testing import eventually
from contracts.topics import Topic
from tests.faults.measured import print_measured
from tests.integration.chassis.path import (
    create_topic,
    publish,
    rows,
    schema,
    signed_up,
    subscriber,
    topic_of_its_own,
    utc_now,
)
from tests.integration.chassis.worker import until_it_works, worker_process

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("load")]

_SUBJECTS: Final = 1_000
_EVENTS_EACH: Final = 1_000
_REPLAYED_BY_EACH: Final = 20_000
_BATCH: Final = 1_000
# A worker that was killed is back, and its partitions are its own again.
_BACK_WITHIN_S: Final = 60.0
_WITHIN_S: Final = 10.0


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    async with schema(database) as engine:
        yield engine


async def _publish_history(kafka: str, topic: Topic, subjects: Sequence[UUID]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=1_000_000)
    await producer.start()
    try:
        for sequence in range(1, _EVENTS_EACH + 1):
            batch = producer.create_batch()
            for subject in subjects:
                event = signed_up(subject, sequence)
                appended = batch.append(
                    key=event.key, value=event.payload, timestamp=None, headers=event.headers
                )
                assert appended is not None, "a batch holds one event of each subject"
            await producer.send_batch(batch, topic.name, partition=0)
        await producer.flush()
    finally:
        await producer.stop()


class _Newest:
    """New events of a subject of its own, one after the other."""

    def __init__(self, database: str, kafka: str, topic: Topic) -> None:
        self.handled_after_s: list[float] = []
        self._number = 0
        self._database = database
        self._kafka = kafka
        self._topic = topic
        self._subject = uuid4()

    async def publish_and_await(self, within_s: float) -> None:
        """Publish one, and wait until the sibling has handled it."""
        self._number = number = self._number + 1
        await publish(self._kafka, self._topic, [signed_up(self._subject, number)])
        published_at = time.monotonic()

        async def is_handled() -> bool:
            query = (
                "SELECT FROM effects WHERE subscriber = 'test.sibling' AND subject = $1"
                " AND sequence = $2"
            )
            return bool(await rows(self._database, query, str(self._subject), number))

        await eventually(is_handled, within_s=within_s, every_s=0.01)
        self.handled_after_s.append(time.monotonic() - published_at)


async def _replayed(database: str) -> int:
    """Return the replay's next offset; up to there it has handled each event once, in order."""
    [row] = await rows(
        database,
        """
        SELECT next_offset, (SELECT count(*) FROM effects WHERE subscriber = 'test.new') AS handled,
            NOT EXISTS (
                SELECT FROM effects WHERE subscriber = 'test.new'
                GROUP BY subject
                HAVING max(sequence) <> count(*)
                    OR array_agg(sequence ORDER BY position)
                        <> array_agg(sequence ORDER BY sequence)
            ) AS in_order
        FROM progress WHERE subscriber = 'test.new'
        """,
    )
    assert (row["handled"], row["in_order"]) == (row["next_offset"], True)
    return int(row["next_offset"])


class TestAReplayOfAMillionRecords:
    async def test_holds_up_no_sibling_and_continues_where_a_killed_worker_left_it(
        self, database: str, engine: Database, kafka: str
    ) -> None:
        topic = topic_of_its_own(1)
        await create_topic(kafka, topic)
        subjects = [uuid4() for _ in range(_SUBJECTS)]
        await _publish_history(kafka, topic, subjects)
        history = _SUBJECTS * _EVENTS_EACH
        sibling = subscriber("test.sibling", topic, starts=Start.NOW)
        async with engine.begin() as connection:
            await begin(connection, [sibling], topic.name, {0: (0, history)}, utc_now)
        both, newest = ("test.sibling", "test.new"), _Newest(database, kafka, topic)

        async with worker_process(database, kafka, topic, "w", both, chunk_max_events=500) as first:
            await until_it_works(first)
            await eventually(lambda: _replayed(database))
            while await _replayed(database) < _REPLAYED_BY_EACH:
                await newest.publish_and_await(_WITHIN_S)
            first.kill()
            await first.wait()
        at_the_kill = await _replayed(database)
        async with worker_process(database, kafka, topic, "w", both, chunk_max_events=500):
            before_the_kill = newest.handled_after_s.copy()
            await newest.publish_and_await(_BACK_WITHIN_S)
            newest.handled_after_s[:] = before_the_kill
            while await _replayed(database) < at_the_kill + _REPLAYED_BY_EACH:
                await newest.publish_and_await(_WITHIN_S)
        replayed = await _replayed(database)

        print_measured("a new event beside a replay", newest.handled_after_s, bound=_WITHIN_S)
        assert len(newest.handled_after_s) >= 20
        assert replayed < history
