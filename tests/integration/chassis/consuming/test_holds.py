"""Where Kafka no longer has what progress says, nothing is handled until an operator decides."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import TopicPartition

from chassis.consuming import offsets
from chassis.consuming.attempts import Attempts
from chassis.consuming.dead_letters import Parking, not_understood
from chassis.consuming.holds import (
    ContinueFrom,
    Decision,
    NotHeld,
    OffsetNotThere,
    SeenTopic,
    end_hold,
    hold,
)
from chassis.consuming.offsets import AllHeld, AllPaused, OffsetRange, SubscriberOffset
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.subscribers import Start
from chassis.persistence import tables
from chassis.persistence.database import Connection
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from chassis.testing import FakeRecord, chunk_of
from tests.integration.chassis.path import (
    PathWork,
    count,
    rows,
    schema,
    signed_up,
    subscriber,
    utc_now,
)
from tests.integration.chassis.service import (
    TOPIC,
    Failing,
    NameIsTaken,
    Service,
    records_of,
    sign_ups,
)

OLD, NEW = uuid4(), uuid4()
TP = TopicPartition(TOPIC.name, 0)
ONE = subscriber("test.one", TOPIC)
TWO = subscriber("test.two", TOPIC)
FROM_BEGINNING = Decision(ContinueFrom.BEGINNING)


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with schema(database) as engine:
        yield Service(database, engine)


@pytest.fixture
async def connection(service: Service) -> AsyncIterator[Connection]:
    async with service.engine.begin() as connection:
        yield connection


def seen(topic_id: UUID, *bounds: tuple[int, int], **more: Any) -> SeenTopic:
    """A topic as Kafka has it, with these bounds of its partitions."""
    return SeenTopic(TOPIC.name, topic_id, dict(enumerate(bounds)), **more)


async def begin(
    connection: Connection,
    *bounds: tuple[int, int],
    topic_id: UUID = OLD,
    subscribers: Sequence[Any] = (ONE,),
) -> Sequence[SubscriberOffset]:
    return await offsets.begin(
        connection, subscribers, TOPIC.name, dict(enumerate(bounds)), utc_now, topic_id
    )


async def advance(
    connection: Connection, begin: int, end: int, topic_id: UUID = OLD
) -> dict[str, int]:
    moved = await offsets.advance(
        connection,
        [ONE.name, TWO.name],
        TOPIC.name,
        [OffsetRange(0, begin, end, topic_id)],
        utc_now(),
    )
    return moved[0]


async def read(connection: Connection) -> dict[tuple[str, int], SubscriberOffset]:
    found = await offsets.read(connection, [ONE, TWO])
    return {(each.subscriber, each.tp.partition): each for each in found}


async def hold_all(connection: Connection, topic: SeenTopic) -> None:
    await hold(connection, topic, await offsets.read(connection, [ONE, TWO]), utc_now())


class TestWhatIsHeld:
    async def test_is_every_partition_of_a_topic_that_was_made_again(
        self, connection: Connection
    ) -> None:
        await begin(connection, (0, 0), (0, 0), subscribers=[ONE, TWO])

        await hold_all(connection, seen(NEW, (0, 9), (0, 9)))

        held = (await read(connection)).values()
        assert [each.held_because for each in held] == 4 * [
            f"{TOPIC.name} was deleted and made again: its id was {OLD} and is {NEW}"
        ]

    async def test_is_what_comes_after_the_end_or_before_the_beginning(
        self, connection: Connection
    ) -> None:
        one = subscriber("test.one", TOPIC, starts=Start.NOW)
        await begin(connection, (0, 7), (0, 7), (0, 7), (0, 7), subscribers=[one])

        await hold_all(connection, seen(OLD, (0, 6), (8, 9), (0, 7), (7, 7)))

        assert [each.held_because for each in (await read(connection)).values()] == [
            f"{TOPIC.name}[0] holds 0 to 6, and progress is at 7",
            f"{TOPIC.name}[1] holds 8 to 9, and progress is at 7",
            None,
            None,
        ]

    async def test_is_what_a_fetch_did_not_find_although_the_topic_has_grown_since(
        self, connection: Connection
    ) -> None:
        await begin(connection, (0, 0), (0, 0))

        await hold_all(connection, seen(OLD, (0, 99), (0, 99), out_of_range={0: 50}))

        assert [each.held_because for each in (await read(connection)).values()] == [
            f"{TOPIC.name}[0] ended before 50, and now holds 0 to 99",
            None,
        ]

    async def test_is_not_an_offset_after_a_cut_beginning(self, connection: Connection) -> None:
        await begin(connection, (0, 0), subscribers=[ONE])
        await begin(connection, (50, 50), subscribers=[TWO])

        await hold_all(connection, seen(OLD, (20, 99), out_of_range={0: 0}))

        held = await read(connection)
        assert held[ONE.name, 0].held_because is not None
        assert held[TWO.name, 0].held_because is None

    async def test_is_not_what_moved_while_the_topic_was_looked_at(
        self, connection: Connection
    ) -> None:
        before = await begin(connection, (0, 0))
        await advance(connection, 0, 9)

        assert not await hold(connection, seen(OLD, (1, 4)), before, utc_now())
        assert (await read(connection))[ONE.name, 0].held_because is None

    async def test_is_what_moved_in_a_topic_that_was_made_again(
        self, connection: Connection
    ) -> None:
        before = await begin(connection, (0, 0))
        await advance(connection, 0, 9)

        assert await hold(connection, seen(NEW, (0, 9)), before, utc_now())

    async def test_keeps_its_first_reason(self, connection: Connection) -> None:
        await begin(connection, (5, 5))
        await hold_all(connection, seen(OLD, (0, 4)))
        first = await read(connection)

        await hold_all(connection, seen(NEW, (0, 99)))

        assert await read(connection) == first

    async def test_is_nothing_where_an_id_is_not_known(self, connection: Connection) -> None:
        await begin(connection, (0, 0), topic_id=UNKNOWN_TOPIC_ID)
        await hold_all(connection, seen(NEW, (0, 9)))
        await begin(connection, (0, 0), topic_id=NEW)
        await hold_all(connection, seen(UNKNOWN_TOPIC_ID, (0, 9)))

        found = (await read(connection))[ONE.name, 0]
        assert (found.held_because, found.topic_id) == (None, NEW)

    async def test_is_each_partition_that_is_new_where_a_topic_was_made_again(
        self, connection: Connection
    ) -> None:
        await begin(connection, (0, 0))

        await begin(connection, (0, 9), (0, 9), topic_id=NEW)

        assert (await read(connection))[ONE.name, 1].held_because is not None

    async def test_is_no_partition_that_was_added_to_a_topic(self, connection: Connection) -> None:
        await begin(connection, (0, 0))

        await begin(connection, (0, 0), (0, 9))

        added = (await read(connection))[ONE.name, 1]
        assert (added.held_because, added.topic_id) == (None, OLD)


class TestAHeldPartition:
    async def test_is_moved_by_no_chunk(self, connection: Connection) -> None:
        await begin(connection, (0, 0), subscribers=[ONE, TWO])
        await connection.execute(
            tables.progress.update()
            .where(tables.progress.c.subscriber == ONE.name)
            .values(held_because="it is")
        )

        assert await advance(connection, 0, 9) == {TWO.name: 0}

        offset = await read(connection)
        assert [offset[each.name, 0].next_offset for each in (ONE, TWO)] == [0, 9]

    async def test_is_moved_by_no_chunk_of_another_topic(self, connection: Connection) -> None:
        await begin(connection, (0, 0))

        with pytest.raises(AllHeld):
            await advance(connection, 0, 9, NEW)

        assert (await read(connection))[ONE.name, 0].next_offset == 0

    @pytest.mark.parametrize(
        ("stored", "given"), [(UNKNOWN_TOPIC_ID, NEW), (OLD, UNKNOWN_TOPIC_ID)]
    )
    async def test_is_none_where_an_id_is_not_known(
        self, connection: Connection, stored: UUID, given: UUID
    ) -> None:
        await begin(connection, (0, 0), topic_id=stored)

        assert await advance(connection, 0, 9, given) == {ONE.name: 0}

        assert (await read(connection))[ONE.name, 0].next_offset == 9

    async def test_waits_as_a_paused_one_where_another_subscriber_is_paused(
        self, connection: Connection
    ) -> None:
        await begin(connection, (0, 0), subscribers=[ONE, TWO])
        await connection.execute(
            tables.progress.update()
            .where(tables.progress.c.subscriber == ONE.name)
            .values(held_because="it is")
        )
        await connection.execute(
            tables.progress.update()
            .where(tables.progress.c.subscriber == TWO.name)
            .values(paused_at=utc_now())
        )

        with pytest.raises(AllPaused):
            await advance(connection, 0, 9)


class TestAChunk:
    async def processor(self, service: Service, topic_id: UUID) -> ChunkProcessor[PathWork]:
        """A processor of a topic that has this id, although that had another before."""
        one = subscriber("test.one", TOPIC)
        processor = await service.processor(one)
        await rows(service.database, "UPDATE progress SET topic_id = $1", topic_id)
        return processor

    async def process(
        self, service: Service, processor: ChunkProcessor[PathWork], records: Sequence[FakeRecord]
    ) -> None:
        chunk = replace(chunk_of(records), topic_id=OLD)
        await processor.process(chunk, service.chunks)

    async def test_of_a_topic_that_is_gone_is_left(self, service: Service) -> None:
        processor = await self.processor(service, NEW)

        await self.process(service, processor, sign_ups(3))

        assert service.chunks.left
        assert await count(service.database) == 0
        assert await service.open_attempts() == []

    async def test_of_a_partition_that_is_held_is_left(self, service: Service) -> None:
        processor = await self.processor(service, OLD)
        await rows(service.database, "UPDATE progress SET held_because = 'it is'")

        await self.process(service, processor, sign_ups(3))

        assert service.chunks.left
        assert await count(service.database) == 0

    async def test_is_left_when_the_hold_comes_while_event_after_event_is_handled(
        self, service: Service
    ) -> None:
        calls: list[str] = []

        async def refuse_and_hold(*_: object) -> None:
            calls.append("call")
            if len(calls) == 2:  # the rehearsal, which locks no progress
                await rows(service.database, "UPDATE progress SET held_because = 'it is'")
            raise NameIsTaken("taken")

        processor = await service.processor(subscriber("test.one", TOPIC, before=refuse_and_hold))

        await self.process(service, processor, sign_ups(1))

        assert service.chunks.left
        assert await service.parked() == []
        assert await service.open_attempts() == []

    async def test_is_handled_by_the_subscribers_that_are_not_held(self, service: Service) -> None:
        processor = await service.processor(ONE, TWO)
        await rows(
            service.database,
            "UPDATE progress SET held_because = 'it is' WHERE subscriber = $1",
            ONE.name,
        )

        await self.process(service, processor, sign_ups(3))

        assert await service.handled(ONE.name) == []
        assert len(await service.handled(TWO.name)) == 3
        assert await service.next_offset(ONE.name) == 0


class TestAPlace:
    """A place is kept apart from the same place in a topic that was made again."""

    async def test_counts_the_attempts_of_its_own_topic_only(self, service: Service) -> None:
        attempts = Attempts(service.engine, TOPIC.name, utc_now)
        await attempts.begin(OLD, 0, 5, ONE.name)
        await attempts.begin(OLD, 0, 5, ONE.name)

        assert (await attempts.begin(NEW, 0, 6, ONE.name)).count == 1
        again = await attempts.begin(NEW, 0, 5, ONE.name)

        assert again.count == 1
        await attempts.undo(again)
        assert not await attempts.is_any_left(NEW, 0, 5, 6)
        assert await attempts.is_any_left(OLD, 0, 5, 6)

    async def test_parks_an_event_where_another_was_parked_before(self, service: Service) -> None:
        records = sign_ups(1)
        failing = Failing(lambda: NameIsTaken("taken"), *records, *(again := sign_ups(1)))
        processor = await service.processor(subscriber("test.one", TOPIC, before=failing))
        for topic_id, chunk in ((OLD, records), (NEW, again)):
            await rows(
                service.database, "UPDATE progress SET topic_id = $1, next_offset = 0", topic_id
            )
            await processor.process(replace(chunk_of(chunk), topic_id=topic_id), service.chunks)

        kept = await rows(service.database, "SELECT payload, topic_id FROM parked ORDER BY id")
        assert [(row["payload"], row["topic_id"]) for row in kept] == [
            (records[0].value, OLD),
            (again[0].value, NEW),
        ]


async def park(connection: Connection, *records: FakeRecord) -> None:
    parking = Parking(ONE.name, utc_now)
    for each in records:
        parking.park(each, None, not_understood("odd"))
    await parking.flush(connection)


def odd(offset: int, value: bytes = b"odd") -> FakeRecord:
    return FakeRecord(TOPIC.name, 0, offset, None, value, [])


class TestTheEndOfAHold:
    @pytest.mark.parametrize(
        ("decision", "next_offset"),
        [
            (Decision(ContinueFrom.BEGINNING), 2),
            (Decision(ContinueFrom.OFFSET, 5), 5),
            (Decision(ContinueFrom.END), 9),
        ],
    )
    async def test_moves_progress_into_the_topic_as_it_is(
        self, connection: Connection, decision: Decision, next_offset: int
    ) -> None:
        await begin(connection, (7, 7))
        topic = seen(NEW, (2, 9))
        await hold_all(connection, topic)

        assert await end_hold(connection, ONE.name, TP, decision, topic, utc_now()) == next_offset

        assert (await read(connection))[ONE.name, 0] == SubscriberOffset(
            ONE.name, TP, next_offset, paused=False, topic_id=NEW
        )
        assert await advance(connection, next_offset, 10, NEW) == {ONE.name: next_offset}

    @pytest.mark.parametrize("offset", [1, 10, None])
    async def test_is_refused_where_the_topic_does_not_hold_the_offset(
        self, connection: Connection, offset: int | None
    ) -> None:
        await begin(connection, (7, 7))
        topic = seen(NEW, (2, 9))
        await hold_all(connection, topic)

        with pytest.raises(OffsetNotThere):
            await end_hold(
                connection,
                ONE.name,
                TP,
                Decision(ContinueFrom.OFFSET, offset),
                topic,
                utc_now(),
            )

        assert (await read(connection))[ONE.name, 0].held_because is not None

    async def test_is_refused_where_nothing_is_held(self, connection: Connection) -> None:
        await begin(connection, (7, 7), subscribers=[ONE, TWO])
        await connection.execute(
            tables.progress.update()
            .where(tables.progress.c.subscriber == TWO.name)
            .values(held_because="it is", held_at=utc_now())
        )

        with pytest.raises(NotHeld):
            await end_hold(connection, ONE.name, TP, FROM_BEGINNING, seen(OLD, (0, 9)), utc_now())

    async def test_forgets_the_attempts_and_the_allowances_of_the_old_log(
        self, connection: Connection
    ) -> None:
        await begin(connection, (0, 0), (0, 0))
        for partition in (0, 1):
            await connection.execute(
                tables.park_allowances.insert().values(
                    topic=TOPIC.name, partition=partition, below_offset=99, allowed_at=utc_now()
                )
            )
            for name in ("", ONE.name, TWO.name):
                await connection.execute(
                    tables.tries.insert().values(
                        subscriber=name,
                        topic=TOPIC.name,
                        topic_id=OLD,
                        partition=partition,
                        offset=5,
                        count=3,
                        first_at=utc_now(),
                        last_at=utc_now(),
                    )
                )
        topic = seen(NEW, (0, 9), (0, 9))
        await hold_all(connection, topic)

        await end_hold(connection, ONE.name, TP, FROM_BEGINNING, topic, utc_now())

        left = await connection.execute(tables.tries.select())
        assert {(row.subscriber, row.partition) for row in left} == {
            (TWO.name, 0),
            ("", 1),
            (ONE.name, 1),
            (TWO.name, 1),
        }
        allowed = await connection.execute(tables.park_allowances.select())
        assert [row.partition for row in allowed] == [1]

    async def test_keeps_an_allowance_that_was_given_since(self, connection: Connection) -> None:
        await begin(connection, (0, 0))
        topic = seen(NEW, (0, 9))
        await hold_all(connection, topic)
        await connection.execute(
            tables.park_allowances.insert().values(
                topic=TOPIC.name, partition=0, below_offset=9, allowed_at=utc_now()
            )
        )

        await end_hold(connection, ONE.name, TP, FROM_BEGINNING, topic, utc_now())

        assert len((await connection.execute(tables.park_allowances.select())).all()) == 1

    async def test_keeps_what_is_parked_and_what_parks_at_its_place_afterwards(
        self, connection: Connection
    ) -> None:
        """Also where a topic lost its end, and so uses places again under the id that it had."""
        await begin(connection, (9, 9))
        await park(connection, odd(3), odd(7, b"lost"))
        topic = seen(OLD, (0, 5))
        await hold_all(connection, topic)

        await end_hold(connection, ONE.name, TP, Decision(ContinueFrom.END), topic, utc_now())
        await park(connection, odd(7, b"new"))

        kept = await connection.execute(tables.parked.select().order_by(tables.parked.c.id))
        assert [(row.offset, row.payload, row.topic_id == OLD) for row in kept] == [
            (3, b"odd", True),
            (7, b"lost", False),
            (7, b"new", True),
        ]

    async def test_removes_progress_in_a_partition_that_is_no_more(
        self, connection: Connection
    ) -> None:
        await begin(connection, (0, 0), (0, 0))
        topic = seen(NEW, (0, 9))
        await hold_all(connection, topic)
        gone = TopicPartition(TOPIC.name, 1)

        assert await end_hold(connection, ONE.name, gone, FROM_BEGINNING, topic, utc_now()) is None

        assert (await read(connection)).keys() == {(ONE.name, 0)}


class TestFromTheBeginningOfATopicThatWasMadeAgain:
    """The inbox is about aggregates, wherever their events are: it stays."""

    async def continued(self, service: Service) -> ChunkProcessor[PathWork]:
        """A processor that has handled three events of the old topic, and begins the new one."""
        processor = await service.processor(ONE)
        await rows(service.database, "UPDATE progress SET topic_id = $1, next_offset = 0", NEW)
        return processor

    async def test_what_a_producer_repeats_is_dropped_and_what_it_continues_is_handled(
        self, service: Service
    ) -> None:
        ada, bob = uuid4(), uuid4()
        first = [signed_up(ada, 1), signed_up(ada, 2), signed_up(bob, 1)]
        await service.process(await service.processor(ONE), records_of(*first))

        await service.process(
            await self.continued(service),
            records_of(*first, signed_up(ada, 3), signed_up(bob, 3)),
        )

        assert await service.handled() == [
            (str(ada), 1),
            (str(ada), 2),
            (str(bob), 1),
            (str(ada), 3),
            (str(bob), 3),
        ]
        [missing] = await rows(service.database, "SELECT * FROM inbox_missing")
        assert (missing["subject"], missing["sequence"]) == (str(bob), 2)

    async def test_what_a_producer_numbers_from_1_again_is_parked_as_forked(
        self, service: Service
    ) -> None:
        ada, bob = uuid4(), uuid4()
        await service.process(
            await service.processor(ONE), records_of(signed_up(ada, 1), signed_up(ada, 2))
        )

        await service.process(
            await self.continued(service),
            records_of(signed_up(ada, 1), signed_up(ada, 2), signed_up(ada, 3), signed_up(bob, 1)),
        )

        assert [(offset, reason) for offset, reason, *_ in await service.parked()] == [
            (0, "forked"),
            (1, "forked"),
            (2, "behind"),
        ]
        assert (str(bob), 1) in await service.handled()
