"""Each event has its effect once, whatever chunk it comes in, how often, and what fails."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from sqlalchemy import text

from chassis.backoff import Backoff
from chassis.consuming import group_commit, retries, retry_policy, single_events
from chassis.consuming.attempts import Attempts
from chassis.consuming.chunk import ChunkInProgress
from chassis.consuming.dead_letter_limit import DeadLetterLimit
from chassis.consuming.dead_letters import headers_in
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.offsets import AllPaused, SubscriberOffset
from chassis.consuming.processor import SUSPECT_AFTER, ChunkProcessor
from chassis.consuming.records import Record
from chassis.consuming.single_events import MOST_TRIES
from chassis.consuming.subscribers import RecordSubscriber, Start
from chassis.domain import DomainError, Kind
from chassis.persistence.database import Database
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from chassis.persistence.transactor import StaleAggregate
from chassis.testing import FakeRecord, chunk_of, eventually
from contracts.envelope import Envelope, decode
from contracts.events import IntegrationEvent
from tests.integration.chassis.path import (
    PathWork,
    count,
    is_waiting_for_a_lock,
    rows,
    schema,
    signed_up,
    subscriber,
    utc_now,
)
from tests.integration.chassis.proxy import postgres_through_proxy
from tests.integration.chassis.service import (
    TOPIC,
    Failing,
    NameIsTaken,
    Service,
    records_of,
    sign_ups,
    subject_of,
)


class SomethingIsAway(DomainError):
    kind, code = Kind.UNAVAILABLE, "something-is-away"


async def keep_each(work: PathWork, records: Sequence[Record]) -> None:
    for record in records:
        work.handled("test.one", decode(record.value))


class Together:
    """Keeps records when another is about to do the same, or waits for a lock of ours."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._entered = 0

    async def __call__(self, work: PathWork, records: Sequence[Record]) -> None:
        self._entered += 1
        await eventually(self._another_is_there)
        await keep_each(work, records)

    async def _another_is_there(self) -> bool:
        return self._entered > 1 or await is_waiting_for_a_lock(self._database)


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with schema(database) as engine:
        yield Service(database, engine)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(first_s=0.02, longest_s=0.02))


class TestOffsetsWithoutARecord:
    async def test_move_progress_by_an_empty_chunk(self, service: Service) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))
        empty = replace(chunk_of(sign_ups(1)), end=7, records=[])

        await consumer.process(empty, service.chunks)

        assert (await service.next_offset(), service.chunks.done) == (7, 7)
        assert await count(service.database) == 0
        assert await service.open_attempts() == []

    async def test_behind_the_last_record_move_progress_with_it(self, service: Service) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))

        await consumer.process(replace(chunk_of(sign_ups(3)), end=7), service.chunks)

        assert await service.next_offset() == 7

    async def test_move_progress_also_when_a_chunk_is_handled_event_by_event(
        self, service: Service
    ) -> None:
        records = sign_ups(3)
        failing = Failing(lambda: NameIsTaken("taken"), records[2])
        one = subscriber("test.one", TOPIC, before=failing)
        consumer = await service.processor(one, subscriber("test.two", TOPIC))

        await consumer.process(replace(chunk_of(records), end=7), service.chunks)

        assert [await service.next_offset(name) for name in ("test.one", "test.two")] == [7, 7]
        assert len(await service.parked()) == 1
        assert service.chunks.done == 7

    async def test_move_the_progress_of_no_subscriber_that_is_paused(
        self, service: Service
    ) -> None:
        records = sign_ups(3)
        failing = Failing(lambda: NameIsTaken("taken"), records[2])
        two = subscriber("test.two", TOPIC)
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing), two)
        await rows(
            service.database, "UPDATE progress SET paused_at = now() WHERE subscriber = 'test.two'"
        )

        await consumer.process(replace(chunk_of(records), end=7), service.chunks)

        assert [await service.next_offset(name) for name in ("test.one", "test.two")] == [7, 0]


class TestProgressDecides:
    async def test_a_chunk_that_comes_again_is_dropped(self, service: Service) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))
        records = sign_ups(10)

        await service.process(consumer, records)
        await service.process(consumer, records)

        assert await count(service.database) == 10
        assert await service.next_offset() == 10

    async def test_a_chunk_that_overlaps_is_trimmed(self, service: Service) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))
        records = sign_ups(10)
        await service.process(consumer, records[:6])

        await service.process(consumer, records[2:])

        assert await count(service.database) == 10
        assert service.chunks.done == 10

    async def test_an_older_chunk_that_comes_late_moves_nothing_back(
        self, service: Service
    ) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))
        records = sign_ups(10)
        await service.process(consumer, records)

        await service.process(consumer, records[:4])

        assert await service.next_offset() == 10

    async def test_one_that_keeps_records_is_given_none_again(self, service: Service) -> None:
        consumer = await service.processor(RecordSubscriber("test.one", TOPIC, keep_each))
        records = sign_ups(10)
        await service.process(consumer, records[:6])

        await service.process(consumer, records[2:])

        assert await count(service.database) == 10
        assert await service.parked() == []

    async def test_a_chunk_after_a_hole_is_refused_and_fetched_again(
        self, service: Service
    ) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))

        await service.process(consumer, sign_ups(6, offset=4))

        assert service.chunks.rewound_to == [0]
        assert await count(service.database) == 0
        assert await service.open_attempts() == []

    async def test_a_hole_that_opens_while_event_after_event_is_handled_is_noticed_too(
        self, service: Service
    ) -> None:
        records = sign_ups(3)
        first, second = subject_of(records[0]), subject_of(records[1])
        seen: list[str] = []
        restored = asyncio.Event()

        async def wait_behind_the_first(_event: IntegrationEvent, envelope: Envelope) -> None:
            seen.append(envelope.subject)
            if envelope.subject == second and not restored.is_set():
                raise NameIsTaken("taken") if seen.count(second) < 3 else StaleAggregate

        async def one_has_handled_the_first() -> bool:
            return await service.next_offset("test.one") == 1

        async def restore_the_database(_event: IntegrationEvent, envelope: Envelope) -> None:
            # The first time was in the whole chunk, the second in the rehearsal.
            if envelope.subject == first and seen.count(first) >= 3:
                await eventually(one_has_handled_the_first)
                # As from an older copy: what the other did with this event is gone.
                await rows(
                    service.database,
                    "UPDATE progress SET next_offset = 0 WHERE subscriber = 'test.one'",
                )
                restored.set()

        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=wait_behind_the_first),
            subscriber("test.two", TOPIC, before=restore_the_database),
        )

        await service.process(consumer, records)

        assert service.chunks.rewound_to == [0]
        assert await service.next_offset("test.one") == 0
        assert await service.parked() == []

    async def test_a_chunk_that_is_no_longer_ours_is_left_alone(self, service: Service) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))
        service.chunks.revoked = True

        await service.process(consumer, sign_ups(2))

        assert await count(service.database) == 0

    async def test_two_that_handle_one_chunk_at_once_do_it_once(self, service: Service) -> None:
        ours = await service.processor(subscriber("test.one", TOPIC))
        zombie = await service.processor(subscriber("test.one", TOPIC))
        records = sign_ups(50)

        await asyncio.gather(service.process(ours, records), service.process(zombie, records))

        assert await count(service.database) == 50
        assert await service.parked() == []

    async def test_two_that_keep_the_records_of_one_chunk_at_once_do_it_once(
        self, service: Service
    ) -> None:
        keeper = RecordSubscriber("test.one", TOPIC, Together(service.database))
        ours, zombie = await service.processor(keeper), await service.processor(keeper)
        records = sign_ups(50)

        await asyncio.gather(service.process(ours, records), service.process(zombie, records))

        assert await count(service.database) == 50

    async def test_two_that_handle_it_event_by_event_at_once_do_it_once(
        self, service: Service
    ) -> None:
        together = Together(service.database)

        async def keep_one_at_a_time(work: PathWork, records: Sequence[Record]) -> None:
            if len(records) > 1:
                raise LookupError
            await together(work, records)

        keeper = RecordSubscriber("test.one", TOPIC, keep_one_at_a_time)
        ours, zombie = await service.processor(keeper), await service.processor(keeper)
        records = sign_ups(5)

        await asyncio.gather(service.process(ours, records), service.process(zombie, records))

        assert await count(service.database) == 5
        assert await service.parked() == []

    async def test_a_commit_calls_those_who_wait_for_what_it_wrote(self, service: Service) -> None:
        consumer = await service.processor(subscriber("test.one", TOPIC))

        await service.process(consumer, sign_ups(5))

        assert service.commits == 1


class TestAnEventThatFails:
    async def test_for_good_is_parked_at_once_and_the_rest_is_handled(
        self, service: Service
    ) -> None:
        records = sign_ups(5)
        failing = Failing(lambda: NameIsTaken("taken"), records[2])
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)

        assert await service.parked() == [(2, "failed", "name-is-taken", 1)]
        assert len(await service.handled()) == 4
        assert await service.next_offset() == 5
        assert await service.open_attempts() == []

    async def test_for_an_unknown_reason_is_tried_some_times(self, service: Service) -> None:
        records = sign_ups(3)
        failing = Failing(lambda: LookupError("?"), records[1])
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)

        assert await service.parked() == [(1, "failed", "unexpected-error", MOST_TRIES)]
        assert len(await service.handled()) == 2
        # Once in the chunk, once in the rehearsal, then alone.
        assert failing.seen.count(subject_of(records[1])) == 2 + MOST_TRIES

    async def test_and_recovers_is_handled(self, service: Service) -> None:
        records = sign_ups(3)
        failing = Failing(lambda: SomethingIsAway("away"), records[1], times=3)
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)

        assert await service.parked() == []
        assert len(await service.handled()) == 3
        assert await service.open_attempts() == []

    async def test_by_taking_too_long_is_tried_some_times(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(group_commit, "_BATCH_TIMEOUT_S", 0.3)
        monkeypatch.setattr(group_commit, "_CHUNK_TIMEOUT_S", 0.3)
        monkeypatch.setattr(single_events, "_EVENT_TIMEOUT_S", 0.3)
        records = sign_ups(3)

        async def hang(_event: IntegrationEvent, envelope: Envelope) -> None:
            if envelope.subject == subject_of(records[1]):
                await asyncio.sleep(60)

        consumer = await service.processor(subscriber("test.one", TOPIC, before=hang))

        async with asyncio.timeout(50):
            await service.process(consumer, records)

        assert await service.parked() == [(1, "failed", "unexpected-error", MOST_TRIES)]
        assert len(await service.handled()) == 2

    async def test_by_conflicts_that_pass_is_handled(self, service: Service) -> None:
        records = sign_ups(2)
        failing = Failing(StaleAggregate, records[0], times=10)
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)

        assert await service.parked() == []
        assert len(await service.handled()) == 2

    async def test_is_kept_as_it_came(self, service: Service) -> None:
        record = sign_ups(1)[0]
        record = FakeRecord(
            record.topic, 0, 0, record.key, record.value, [*record.headers, ("odd", None)]
        )
        failing = Failing(lambda: NameIsTaken("taken"), record)
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, [record])

        [kept] = await rows(service.database, "SELECT * FROM parked")
        assert (kept["key"], kept["payload"]) == (record.key, record.value)
        assert (kept["subject"], kept["sequence"]) == (subject_of(record), 1)
        assert '["odd", null]' in kept["headers"]

    async def test_is_kept_as_it_came_also_where_a_headers_name_is_not_utf_8(
        self, service: Service
    ) -> None:
        [record, other] = sign_ups(2)
        odd = [*record.headers, (b"a\xff".decode("utf-8", "surrogateescape"), b"x")]
        consumer = await service.processor(subscriber("test.one", TOPIC))

        await service.process(consumer, [replace(record, headers=odd), other])

        [kept] = await rows(service.database, "SELECT * FROM parked")
        assert (kept["key"], kept["payload"]) == (record.key, record.value)
        assert (kept["reason"], kept["subject"]) == ("not-understood", None)
        assert headers_in(json.loads(kept["headers"])) == odd
        assert await service.handled() == [(subject_of(other), 1)]

    async def test_stops_the_later_ones_of_its_subject_only(self, service: Service) -> None:
        ada, bob = uuid4(), uuid4()
        records = records_of(
            signed_up(ada, 1), signed_up(bob, 1), signed_up(ada, 2), signed_up(bob, 2)
        )
        failing = Failing(lambda: NameIsTaken("taken"), records[0])
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)
        await service.process(consumer, records_of(signed_up(ada, 3), signed_up(bob, 3), offset=4))

        assert [each[:2] for each in await service.parked()] == [
            (0, "failed"),
            (2, "behind"),
            (4, "behind"),
        ]
        assert await service.handled() == [(str(bob), 1), (str(bob), 2), (str(bob), 3)]

    async def test_in_one_subscriber_is_handled_by_the_other_once(self, service: Service) -> None:
        records = sign_ups(5)
        failing = Failing(lambda: LookupError("?"), records[2])
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), subscriber("test.two", TOPIC)
        )

        await service.process(consumer, records)

        assert [each[0] for each in await service.parked("test.one")] == [2]
        assert len(await service.handled("test.two")) == 5
        assert await service.parked("test.two") == []

    async def test_in_both_has_its_own_tries_in_each(self, service: Service) -> None:
        records = sign_ups(1)
        one = Failing(lambda: LookupError("?"), *records)
        two = Failing(lambda: LookupError("?"), *records, times=MOST_TRIES - 1)
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=one), subscriber("test.two", TOPIC, before=two)
        )

        await service.process(consumer, records)

        assert len(await service.parked("test.one")) == 1
        assert await service.parked("test.two") == []
        assert len(await service.handled("test.two")) == 1


class TestManyThatFail:
    async def test_with_one_error_stop_the_consumer_before_the_first_is_parked(
        self, service: Service
    ) -> None:
        records = sign_ups(20)
        failing = Failing(lambda: NameIsTaken("taken"), *records[:6])
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), dead_letter_limit=5
        )

        processing = asyncio.create_task(service.process(consumer, records))

        await until_reports(consumer, "6 aggregates")
        assert await service.parked() == []
        assert await service.handled() == []
        service.chunks.revoked = True
        await processing

    async def test_stop_it_for_the_next_chunk_too(self, service: Service) -> None:
        records = sign_ups(6)
        failing = Failing(lambda: NameIsTaken("taken"), *records)
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), dead_letter_limit=5
        )
        processing = asyncio.create_task(service.process(consumer, records))
        await until_reports(consumer, "6 aggregates")
        service.chunks.revoked = True
        await processing
        seen = len(failing.seen)

        service.chunks.revoked = False
        again = asyncio.create_task(service.process(consumer, records))
        await asyncio.wait([again], timeout=0.3)

        assert len(failing.seen) == seen
        service.chunks.revoked = True
        await again

    async def test_are_parked_when_a_rebalance_is_what_reads_the_allowance(
        self, service: Service
    ) -> None:
        records = [replace(each, value=b"{}") for each in sign_ups(6)]
        consumer = await service.processor(subscriber("test.one", TOPIC), dead_letter_limit=5)
        processing = asyncio.create_task(service.process(consumer, records))
        await until_reports(consumer, "6 aggregates")
        service.chunks.revoked = True
        await processing

        await rows(
            service.database, "INSERT INTO park_allowances VALUES ($1, 0, 6, now())", TOPIC.name
        )
        await consumer.read_allowances()
        service.chunks.revoked = False
        await asyncio.wait_for(service.process(consumer, records), 30)

        assert len(await service.parked()) == 6

    async def test_because_bytes_can_t_be_read_stop_it_without_parking(
        self, service: Service
    ) -> None:
        records = [replace(each, value=b"{}") for each in sign_ups(6)]
        consumer = await service.processor(subscriber("test.one", TOPIC), dead_letter_limit=5)

        processing = asyncio.create_task(service.process(consumer, records))

        await until_reports(consumer, "6 aggregates")
        assert await service.parked() == []
        service.chunks.revoked = True
        await processing

    async def test_of_two_chunks_are_counted_together(self, service: Service) -> None:
        records = sign_ups(6)
        failing = Failing(lambda: NameIsTaken("taken"), *records)
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), dead_letter_limit=5
        )
        await service.process(consumer, records[:4])
        assert len(await service.parked()) == 4

        processing = asyncio.create_task(service.process(consumer, records[4:]))

        await until_reports(consumer, "6 aggregates of", "(4 of them are parked: ")
        assert len(await service.parked()) == 4
        service.chunks.revoked = True
        await processing

    async def test_for_an_unknown_reason_that_passes_are_handled(self, service: Service) -> None:
        records = sign_ups(6)
        failing = Failing(lambda: LookupError("?"), *records, times=2)
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), dead_letter_limit=5
        )

        await service.process(consumer, records)

        assert await service.parked() == []
        assert len(await service.handled()) == 6

    async def test_are_parked_once_an_operator_allows_it(self, service: Service) -> None:
        records = sign_ups(8)
        failing = Failing(lambda: NameIsTaken("taken"), *records[:6])
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), dead_letter_limit=5
        )
        processing = asyncio.create_task(service.process(consumer, records))
        await until_reports(consumer, "6 aggregates")

        await rows(
            service.database,
            "INSERT INTO park_allowances VALUES ($1, 0, 8, now())",
            TOPIC.name,
        )
        await asyncio.wait_for(processing, 20)

        assert len(await service.parked()) == 6
        assert len(await service.handled()) == 2
        assert consumer.trouble() is None

    async def test_are_allowed_at_once_for_all_that_share_the_limit(self, service: Service) -> None:
        records = sign_ups(2)
        failing = Failing(lambda: NameIsTaken("taken"), *records)
        limit = DeadLetterLimit(TOPIC.name, most=1)
        both = [
            await service.processor(
                subscriber(name, TOPIC, before=failing), dead_letter_limit=limit
            )
            for name in ("test.one", "test.two")
        ]
        processing = [asyncio.create_task(service.process(each, records)) for each in both]
        for each in both:
            await until_reports(each, "2 aggregates")

        await rows(
            service.database, "INSERT INTO park_allowances VALUES ($1, 0, 2, now())", TOPIC.name
        )

        await asyncio.wait_for(asyncio.gather(*processing), 20)
        assert len(await service.parked()) == len(await service.parked("test.two")) == 2

    async def test_beyond_what_an_operator_allowed_stop_it_again(self, service: Service) -> None:
        records = sign_ups(12)
        failing = Failing(lambda: NameIsTaken("taken"), *records)
        await rows(
            service.database, "INSERT INTO park_allowances VALUES ($1, 0, 6, now())", TOPIC.name
        )
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), dead_letter_limit=5
        )

        await service.process(consumer, records[:6])
        processing = asyncio.create_task(service.process(consumer, records[6:]))

        await until_reports(consumer, "6 aggregates")
        assert len(await service.parked()) == 6
        service.chunks.revoked = True
        await processing

    async def test_for_good_in_one_subject_do_not_stop_it(self, service: Service) -> None:
        ada = uuid4()
        records = records_of(*(signed_up(ada, number) for number in range(1, 21)))
        failing = Failing(lambda: NameIsTaken("taken"), records[0])
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), dead_letter_limit=5
        )

        await service.process(consumer, records)

        assert len(await service.parked()) == 20

    async def test_to_be_kept_stop_one_that_keeps_records(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(single_events, "MOST_TRIES", 1)

        async def keep(_work: PathWork, _records: object) -> None:
            raise LookupError

        consumer = await service.processor(
            RecordSubscriber("test.one", TOPIC, keep), dead_letter_limit=5
        )
        processing = asyncio.create_task(service.process(consumer, sign_ups(20)))

        await until_reports(consumer, "20 aggregates")
        assert await service.parked() == []
        service.chunks.revoked = True
        await processing


async def until_reports(consumer: ChunkProcessor[PathWork], *reasons: str) -> None:
    async def reports_them() -> bool:
        trouble = consumer.trouble() or ""
        return all(reason in trouble for reason in reasons)

    await eventually(reports_them)


class TestContention:
    async def test_is_retried_without_limit_and_not_counted_as_attempts(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(0.001, 0.001))
        records = sign_ups(2)
        failing = Failing(StaleAggregate, records[0], times=100)
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)

        assert failing.seen.count(subject_of(records[0])) == 101
        assert await service.parked() == []
        assert len(await service.handled()) == 2
        assert await service.open_attempts() == []

    async def test_is_reported_when_it_lasts(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retries, "_SHOW_CONTENTION_AFTER_S", 0.3)
        failing = Failing(StaleAggregate, *(records := sign_ups(1)))
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        processing = asyncio.create_task(service.process(consumer, records))
        await eventually(lambda: asyncio.sleep(0, consumer.is_waiting()))
        at_once = consumer.trouble()
        await until_reports(consumer, "StaleAggregate")

        assert at_once is None
        service.chunks.revoked = True
        await processing

    async def test_that_no_other_transaction_causes_is_an_unknown_failure(
        self, service: Service
    ) -> None:
        records, gone = sign_ups(2), uuid4()
        failing = Failing(lambda: StaleAggregate("things", {gone: 3}), records[0])
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)

        assert await service.parked() == [(0, "failed", "unexpected-error", MOST_TRIES)]
        assert len(await service.handled()) == 1


class TestASlowSubscriber:
    async def test_does_not_delay_another_between_its_tries(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(600, 600, jitter=False))
        records = sign_ups(4)
        waiting = Failing(lambda: LookupError("?"), records[0])
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=waiting), subscriber("test.two", TOPIC)
        )

        processing = asyncio.create_task(service.process(consumer, records))

        async def two_has_handled_all() -> bool:
            return len(await service.handled("test.two")) == 4

        await eventually(two_has_handled_all)
        assert await service.handled("test.one") == []
        assert await service.next_offset("test.two") == 4
        service.chunks.revoked = True
        await processing


# A process that handles one chunk as a worker does, and dies in the handler of one event.
_DIES = """
import asyncio, os, sys
from tests.integration.chassis import path, service
from chassis.testing import FakeRecord

database, topic, begin, *subjects = sys.argv[1:]
service.TOPIC = path.Topic(name=topic, key="x", owner="x", consumers=(), events=())

async def die(_event, envelope):
    if envelope.subject == subjects[2]:
        os._exit(7)

async def main():
    async with path.schema(database) as engine:
        of_it = service.Service(database, engine)
        subscribers = [
            path.subscriber("test.one", service.TOPIC, before=die),
            path.subscriber("test.two", service.TOPIC),
        ]
        consumer = await of_it.processor(*subscribers)
        events = [path.signed_up(path.UUID(each), 1) for each in subjects]
        records = [
            FakeRecord.of(event, topic, offset)
            for offset, event in enumerate(events)
            if offset >= int(begin)
        ]
        await of_it.process(consumer, records)

asyncio.run(main())
"""


class TestAnEventThatKillsItsProcess:
    async def test_is_parked_after_some_deaths_and_others_are_handled(
        self, service: Service
    ) -> None:
        subjects = [str(uuid4()) for _ in range(4)]
        deaths = 0
        code = 7
        while code == 7:
            begin = await self._begin(service)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _DIES, service.database, TOPIC.name, str(begin), *subjects
            )
            code = await process.wait()
            deaths += code == 7
            assert deaths <= SUSPECT_AFTER + MOST_TRIES

        assert code == 0
        assert deaths == SUSPECT_AFTER + MOST_TRIES
        assert await service.parked() == [(2, "failed", "worker-died", MOST_TRIES)]
        assert [each[0] for each in await service.handled()] == [subjects[n] for n in (0, 1, 3)]
        assert [each[0] for each in await service.handled("test.two")] == subjects
        assert await service.parked("test.two") == []

    async def _begin(self, service: Service) -> int:
        found = await rows(service.database, "SELECT min(next_offset) AS n FROM progress")
        return int(found[0]["n"] or 0)

    async def test_in_a_replay_is_counted_although_the_agent_is_beyond_it(
        self, service: Service
    ) -> None:
        began = asyncio.Event()

        async def wait(_event: IntegrationEvent, _envelope: Envelope) -> None:
            began.set()
            await asyncio.sleep(60)

        replay = await service.processor(
            subscriber("test.one", TOPIC, before=wait), chunks_counted_for="test.one"
        )
        replaying = asyncio.create_task(service.process(replay, sign_ups(3)))
        await began.wait()

        agent = await service.processor(subscriber("test.two", TOPIC), bounds=(500, 500))
        await service.process(agent, sign_ups(3, offset=500))

        assert await service.open_attempts() == [("test.one", 0, 1)]
        replaying.cancel()
        await replaying
        assert await service.open_attempts() == []

    async def test_in_a_replay_has_the_chunk_handled_event_by_event_once_it_is_begun_again(
        self, service: Service
    ) -> None:
        replay = await service.processor(
            subscriber("test.one", TOPIC), chunks_counted_for="test.one"
        )
        attempts = Attempts(service.engine, TOPIC.name, utc_now)
        await attempts.begin(UNKNOWN_TOPIC_ID, 0, 0, "test.one")

        await service.process(replay, sign_ups(3))

        assert service.commits == 3
        assert await service.open_attempts() == []


class TestOneThatIsLeftToAReplay:
    async def test_is_no_reason_to_handle_a_chunk_event_by_event_for_nobody(
        self, service: Service
    ) -> None:
        names, far_behind = ("test.one", "test.far"), FarBehind(100)
        subscribers = [subscriber(each, TOPIC) for each in names]
        processor = await service.processor(*subscribers, far_behind=far_behind)
        await rows(
            service.database,
            "UPDATE progress SET next_offset = 500, paused_at = now() WHERE subscriber = $1",
            "test.one",
        )
        tp = TopicPartition(TOPIC.name, 0)
        offsets = [SubscriberOffset("test.one", tp, 500, paused=False)]
        far_behind.look([tp], [*offsets, SubscriberOffset("test.far", tp, 0, paused=False)])
        in_progress = ChunkInProgress(chunk_of(sign_ups(2, offset=500)), service.chunks)

        with pytest.raises(AllPaused):
            await processor._single_events.process(in_progress)


class TestLeaving:
    async def test_by_being_cancelled_rolls_back_and_holds_nothing_against_the_event(
        self, service: Service
    ) -> None:
        began = asyncio.Event()

        async def wait(_event: IntegrationEvent, _envelope: Envelope) -> None:
            began.set()
            await asyncio.sleep(60)

        consumer = await service.processor(subscriber("test.one", TOPIC, before=wait))
        handling = asyncio.create_task(service.process(consumer, sign_ups(3)))
        await began.wait()
        assert await service.open_attempts() == [("", 0, 1)]

        handling.cancel()
        await handling

        assert await count(service.database) == 0
        assert await service.next_offset() == 0
        assert service.chunks.done is None
        assert await service.open_attempts() == []

    async def test_between_two_events_keeps_what_is_done(self, service: Service) -> None:
        records = sign_ups(4)

        async def be_revoked(_event: IntegrationEvent, envelope: Envelope) -> None:
            if envelope.subject == subject_of(records[1]):
                service.chunks.revoked = bool(await service.handled())
                raise LookupError

        consumer = await service.processor(subscriber("test.one", TOPIC, before=be_revoked))

        await service.process(consumer, records)

        assert await service.next_offset() == 1
        assert await service.parked() == []
        assert service.chunks.done is None


class TestADatabaseThatIsAway:
    async def test_is_waited_for_and_nothing_is_parked(self, service: Service) -> None:
        async with postgres_through_proxy(service.database) as (url, proxy):
            engine = Database(url, pool_size=2, application_name="test")
            through = Service(service.database, engine)
            began = asyncio.Event()

            async def say(_event: IntegrationEvent, _envelope: Envelope) -> None:
                began.set()

            consumer = await through.processor(subscriber("test.one", TOPIC, before=say))
            await proxy.refuse()
            handling = asyncio.create_task(through.process(consumer, sign_ups(3)))

            async def says_so() -> bool:
                return "is tried again" in (consumer.trouble() or "")

            await eventually(says_so)
            assert not began.is_set()
            await proxy.accept()
            await handling

            assert len(await through.handled()) == 3
            assert await through.parked() == []
            assert await through.open_attempts() == []
            assert consumer.trouble() is None
            await engine.close()

    @pytest.mark.parametrize("moment", [b"BEGIN", b"FOR UPDATE", b"INSERT INTO effects", b"COMMIT"])
    @pytest.mark.parametrize("answered", [False, True])
    async def test_for_a_moment_at_any_moment_does_no_harm(
        self, service: Service, moment: bytes, *, answered: bool
    ) -> None:
        async with postgres_through_proxy(service.database) as (url, proxy):
            engine = Database(url, pool_size=2, application_name="test")
            through = Service(service.database, engine)
            consumer = await through.processor(subscriber("test.one", TOPIC))
            cut = 0

            async def cut_twice(data: bytes) -> bool:
                nonlocal cut
                if moment not in data or cut == 2:
                    return True
                cut += 1
                if answered:
                    await asyncio.sleep(0.05)  # the server notices, and does not tell the client
                return False

            proxy.on_request = cut_twice

            await through.process(consumer, sign_ups(5))

            assert len(await through.handled()) == 5
            assert await through.parked() == []
            assert await through.next_offset() == 5
            assert cut == 2
            await engine.close()

    async def test_as_it_answers_the_commit_has_one_that_keeps_records_keep_none_twice(
        self, service: Service
    ) -> None:
        async with postgres_through_proxy(service.database) as (url, proxy):
            engine = Database(url, pool_size=2, application_name="test")
            through = Service(service.database, engine)
            # It has no inbox that would drop what comes again.
            consumer = await through.processor(RecordSubscriber("test.one", TOPIC, keep_each))
            cut = False

            async def cut_once(data: bytes) -> bool:
                nonlocal cut
                if cut or b"COMMIT" not in data or not await count(service.database):
                    return True
                cut = True
                return False

            proxy.on_answer = cut_once

            await through.process(consumer, sign_ups(5))

            assert cut
            assert await count(service.database) == 5
            assert await through.next_offset() == 5
            await engine.close()

    async def test_does_not_delay_a_stop(self, service: Service) -> None:
        async with postgres_through_proxy(service.database) as (url, proxy):
            engine = Database(url, pool_size=2, application_name="test")
            through = Service(service.database, engine)
            consumer = await through.processor(subscriber("test.one", TOPIC))
            await proxy.refuse()
            handling = asyncio.create_task(through.process(consumer, sign_ups(3)))
            await asyncio.wait([handling], timeout=0.2)

            handling.cancel()
            async with asyncio.timeout(30):
                await handling
            await engine.close()


class TestASecondSubscriber:
    async def test_that_is_added_later_begins_at_the_beginning_and_the_first_is_not_run_again(
        self, service: Service
    ) -> None:
        records = sign_ups(10)
        seen = Failing(LookupError)
        await service.process(
            await service.processor(subscriber("test.one", TOPIC, before=seen)), records
        )

        both = await service.processor(
            subscriber("test.one", TOPIC, before=seen),
            subscriber("test.two", TOPIC),
            bounds=(0, 10),
        )
        await service.process(both, records + sign_ups(5, offset=10))

        assert len(await service.handled("test.two")) == 15
        assert len(seen.seen) == 15
        assert (await service.next_offset("test.one"), await service.next_offset("test.two")) == (
            15,
            15,
        )

    async def test_that_starts_now_passes_over_what_was_there(self, service: Service) -> None:
        records = sign_ups(10)

        consumer = await service.processor(
            subscriber("test.one", TOPIC),
            subscriber("test.two", TOPIC, starts=Start.NOW),
            bounds=(0, 10),
        )
        await service.process(consumer, records + sign_ups(5, offset=10))

        assert len(await service.handled("test.one")) == 15
        assert len(await service.handled("test.two")) == 5

    async def test_that_starts_now_takes_what_it_sees_first_of_a_subject_for_the_next(
        self, service: Service
    ) -> None:
        ada = uuid4()
        consumer = await service.processor(subscriber("test.two", TOPIC, starts=Start.NOW))

        await service.process(consumer, records_of(signed_up(ada, 7), signed_up(ada, 8)))

        assert await rows(service.database, "SELECT FROM inbox_missing") == []
        assert await service.handled("test.two") == [(str(ada), 7), (str(ada), 8)]


class TestTheConnections:
    async def test_none_is_left_in_a_transaction(self, service: Service) -> None:
        records = sign_ups(30)
        failing = Failing(lambda: LookupError("?"), *records[::10])
        consumer = await service.processor(subscriber("test.one", TOPIC, before=failing))

        await service.process(consumer, records)

        async with service.engine.connect() as connection:
            busy = await connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'test' AND state <> 'idle'"
                    " AND pid <> pg_backend_pid()"
                )
            )
        assert busy == 0
