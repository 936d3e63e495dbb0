"""What becomes of an event by what was seen of its subject before, and of bytes that are none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import product
from uuid import uuid4

import pytest
from sqlalchemy import delete

from chassis.consuming.inbox import Inbox, Verdict, lock_subject
from chassis.consuming.records import EventIdentity
from chassis.consuming.subscribers import Start
from chassis.correlation import CorrelationContext, current_correlation, new_id
from chassis.persistence.database import Connection
from chassis.persistence.tables import parked
from chassis.testing import FakeRecord, eventually
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from tests.integration.chassis.path import (
    count,
    is_waiting_for_a_lock,
    other_event,
    rows,
    schema,
    signed_up,
    subscriber,
    with_wrong_data,
)
from tests.integration.chassis.service import TOPIC, Failing, NameIsTaken, Service, records_of

ODD_KEYS = [None, b"", b"\xff\0"]
NO_EVENTS = [
    None,
    b"",
    b"not json",
    b"[]",
    b"{}",
    b"null",
    b"\xff\xfe",
    b'{"id": "\\ud800"}',
    b"0" * 1_000_000,
]
ODD_HEADERS: list[list[tuple[str, bytes | None]]] = [
    [],
    [("content-type", None), ("subject", b"\xff"), ("sequence", b"x"), ("id", None)],
    [("odd\0name", b"\0")],
]


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with schema(database) as engine:
        yield Service(database, engine)


async def take(service: Service, records: Sequence[FakeRecord]) -> None:
    await service.process(await service.processor(subscriber("test.one", TOPIC)), records)


async def missing(service: Service) -> list[tuple[int, int]]:
    """Return the first and the last sequence of each gap."""
    query = "SELECT sequence, last_sequence FROM inbox_missing ORDER BY sequence"
    return [tuple(row) for row in await rows(service.database, query)]


def in_order(*records: FakeRecord) -> list[FakeRecord]:
    return [replace(each, offset=offset) for offset, each in enumerate(records)]


class TestWhatWasSeenBefore:
    async def test_a_repeat_is_dropped(self, service: Service) -> None:
        ada = uuid4()
        first, second = signed_up(ada, 1), signed_up(ada, 2)

        await take(service, records_of(first, second, first, second))

        assert await service.handled() == [(str(ada), 1), (str(ada), 2)]
        assert await service.parked() == []

    async def test_a_gap_is_recorded_and_the_event_handled(self, service: Service) -> None:
        ada = uuid4()

        await take(service, records_of(signed_up(ada, 1), signed_up(ada, 4)))

        assert await service.handled() == [(str(ada), 1), (str(ada), 4)]
        assert await missing(service) == [(2, 3)]

    async def test_the_first_seen_is_after_a_gap_for_one_that_reads_from_the_beginning(
        self, service: Service
    ) -> None:
        await take(service, records_of(signed_up(uuid4(), 3)))

        assert await missing(service) == [(1, 2)]

    async def test_a_late_one_is_handled_and_closes_the_gap(self, service: Service) -> None:
        ada = uuid4()
        late = signed_up(ada, 2)

        await take(service, records_of(signed_up(ada, 1), signed_up(ada, 4)))
        await take(service, records_of(late, offset=2))
        await take(service, records_of(late, offset=3))

        assert await service.handled() == [(str(ada), 1), (str(ada), 4), (str(ada), 2)]
        assert await missing(service) == [(3, 3)]

    async def test_one_of_a_forked_history_is_parked_and_what_follows_it_waits(
        self, service: Service
    ) -> None:
        ada, bob = uuid4(), uuid4()
        await take(service, records_of(signed_up(ada, 1), signed_up(ada, 2), signed_up(bob, 1)))

        again = records_of(signed_up(ada, 2), signed_up(ada, 3), signed_up(bob, 2), offset=3)
        await take(service, again)

        assert [each[:3] for each in await service.parked()] == [
            (3, "forked", "forked-history"),
            (4, "behind", "behind-parked"),
        ]
        assert await service.handled() == [
            (str(ada), 1),
            (str(ada), 2),
            (str(bob), 1),
            (str(bob), 2),
        ]

    async def test_a_type_that_is_not_ours_is_counted_and_passed_over_unread(
        self, service: Service
    ) -> None:
        ada = uuid4()
        unread = replace(records_of(other_event(ada, 2))[0], value=b"never looked at")

        await take(
            service,
            in_order(records_of(signed_up(ada, 1))[0], unread, records_of(signed_up(ada, 3))[0]),
        )

        assert await service.handled() == [(str(ada), 1), (str(ada), 3)]
        assert await missing(service) == []
        assert await service.parked() == []

    async def test_a_forked_history_of_types_that_are_not_ours_parks_nothing(
        self, service: Service
    ) -> None:
        ada = uuid4()

        await take(service, records_of(signed_up(ada, 1), other_event(ada, 2), other_event(ada, 2)))

        assert await service.parked() == []

    async def test_each_subscriber_counts_for_itself(self, service: Service) -> None:
        ada = uuid4()
        records = records_of(signed_up(ada, 1), signed_up(ada, 2))
        failing = Failing(lambda: NameIsTaken("taken"), records[0])
        consumer = await service.processor(
            subscriber("test.one", TOPIC, before=failing), subscriber("test.two", TOPIC)
        )

        await service.process(consumer, records)

        assert len(await service.parked("test.one")) == 2
        assert len(await service.handled("test.two")) == 2


class TestWhatIsNotUnderstood:
    async def test_data_that_breaks_the_schema_is_parked_and_blocks_its_subject(
        self, service: Service
    ) -> None:
        ada = uuid4()

        await take(service, records_of(with_wrong_data(signed_up(ada, 1)), signed_up(ada, 2)))

        assert [each[:2] for each in await service.parked()] == [
            (0, "not-understood"),
            (1, "behind"),
        ]
        assert await service.handled() == []
        query = "SELECT error_message FROM parked WHERE sequence = 1"
        [kept] = await rows(service.database, query)
        assert kept["error_message"] == "data.username: string_type"

    async def test_bytes_that_are_no_event_are_parked_as_they_came_and_block_no_others(
        self, service: Service
    ) -> None:
        ada = uuid4()
        broken = [
            FakeRecord(TOPIC.name, 0, 0, *parts)
            for parts in product(ODD_KEYS, NO_EVENTS, ODD_HEADERS)
        ]

        await take(service, in_order(*broken, records_of(signed_up(ada, 1))[0]))

        kept = await rows(service.database, 'SELECT * FROM parked ORDER BY "offset"')
        assert [(row["key"], row["payload"]) for row in kept] == [
            (record.key, record.value) for record in broken
        ]
        assert {(row["reason"], row["subject"]) for row in kept} == {("not-understood", None)}
        assert await service.handled() == [(str(ada), 1)]

    async def test_headers_that_disagree_with_the_value_are_parked(self, service: Service) -> None:
        ada, bob = uuid4(), uuid4()
        of_ada, of_bob = records_of(signed_up(ada, 1), signed_up(bob, 1))

        await take(service, in_order(replace(of_ada, headers=of_bob.headers)))

        assert [each[:2] for each in await service.parked()] == [(0, "not-understood")]
        assert await count(service.database) == 0

    async def test_without_headers_the_value_tells(self, service: Service) -> None:
        ada = uuid4()
        record = replace(records_of(signed_up(ada, 1))[0], headers=[])

        await take(service, [record])

        assert await service.handled() == [(str(ada), 1)]


class TestTheTrail:
    async def test_a_handler_is_on_the_trail_of_its_event(self, service: Service) -> None:
        contexts: list[CorrelationContext] = []

        async def look(_event: IntegrationEvent, _envelope: Envelope) -> None:
            contexts.append(current_correlation())

        event = signed_up(uuid4(), 1)
        consumer = await service.processor(subscriber("test.one", TOPIC, before=look))

        await service.process(consumer, records_of(event))

        headers = dict(event.headers)
        assert contexts == [CorrelationContext("c-1", headers["id"].decode())]


class TestTheInboxLock:
    async def lock(self, connection: Connection, label: EventIdentity) -> Inbox:
        return await Inbox.lock(connection, "test.one", TOPIC.name, [label], from_beginning=True)

    async def until_it_waits(self, service: Service, waiting: asyncio.Task[Inbox]) -> None:
        """Wait until a task waits for a lock; fail if it is done instead."""

        async def it_waits_or_is_done() -> bool:
            return waiting.done() or await is_waiting_for_a_lock(service.database)

        await eventually(it_waits_or_is_done)
        assert not waiting.done()

    async def test_two_that_meet_a_new_subject_see_one_another(self, service: Service) -> None:
        async with service.engine.begin() as two:
            async with service.engine.begin() as one:
                first, second = (EventIdentity("ada", number, new_id(), "x") for number in (1, 2))
                inbox = await self.lock(one, first)
                waiting = asyncio.create_task(self.lock(two, second))
                assert inbox.judge(first) is Verdict.NEXT
                await self.until_it_waits(service, waiting)

            assert (await waiting).judge(second) is Verdict.NEXT

    async def test_what_was_released_while_we_waited_is_no_longer_in_the_way(
        self, service: Service
    ) -> None:
        ada = uuid4()
        await take(service, records_of(with_wrong_data(signed_up(ada, 1))))
        async with service.engine.begin() as live:
            async with service.engine.begin() as releasing:
                await lock_subject(releasing, "test.one", TOPIC.name, str(ada))
                following = EventIdentity(str(ada), 2, new_id(), "x")
                waiting = asyncio.create_task(self.lock(live, following))
                await self.until_it_waits(service, waiting)
                await releasing.execute(delete(parked))

            assert (await waiting).judge(following) is Verdict.NEXT


class TestStartingNow:
    async def test_what_came_before_the_first_seen_is_a_repeat(self, service: Service) -> None:
        ada = uuid4()
        older, newer = signed_up(ada, 4), signed_up(ada, 5)
        consumer = await service.processor(subscriber("test.one", TOPIC, starts=Start.NOW))

        await service.process(consumer, records_of(newer, older))

        assert await service.handled() == [(str(ada), 5)]
        assert await service.parked() == []
