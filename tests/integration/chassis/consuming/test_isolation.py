"""Commands and chunks at once: a rule over several aggregates holds, and no one deadlocks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar, Final
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Integer, MetaData, Select, Table, Uuid

from chassis.consuming import offsets
from chassis.consuming.aggregates import Aggregates
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.subscribers import EventSubscriber
from chassis.correlation import new_id
from chassis.domain import Aggregate
from chassis.persistence import tables
from chassis.persistence.aggregate_table import AggregateTable
from chassis.persistence.database import Connection, Database, Result, Row, sqlstate_of
from chassis.persistence.outbox import Outbox
from chassis.persistence.statements import compiled
from chassis.persistence.transactor import Transactor
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of, eventually
from contracts.envelope import Envelope, encode
from contracts.events import IntegrationEvent
from contracts.users import TaskCreatedV1
from tests.integration.chassis.path import (
    is_waiting_for_a_lock,
    rows,
    schema,
    topic_of_its_own,
    utc_now,
)

TOPIC = topic_of_its_own()

metadata = MetaData(naming_convention=tables.NAMING)
purses = Table(
    "purses",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("balance", Integer, nullable=False),
    Column("number", Integer, unique=True),
)
tables.add_to(metadata)


class Purse(Aggregate):
    """May be overdrawn, as long as it and its partner are not, taken together."""

    def __init__(
        self, id_: UUID, balance: int, number: int, version: int = 0, sequence: int = 0
    ) -> None:
        super().__init__(id_, version=version, sequence=sequence)
        self.balance = balance
        self.number = number


class Purses(AggregateTable[Purse]):
    table = purses
    topic = TOPIC
    found_by: ClassVar[Sequence[str]] = ("number",)

    def to_row(self, aggregate: Purse) -> dict[str, Any]:
        return {"balance": aggregate.balance, "number": aggregate.number}

    def from_row(self, row: Row) -> Purse:
        return Purse(row.id, row.balance, row.number, row.version, row.sequence)

    @staticmethod
    def translate(event: Any, /) -> Sequence[IntegrationEvent]:
        return []

    async def by_number(self, numbers: Iterable[int]) -> Mapping[int, Purse]:
        return await self._find("number", numbers)


class Work:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.purses = Purses(connection, Outbox("/test", utc_now))

    async def flush(self) -> None:
        await self.purses.flush()


async def withdraw(work: Work, first: UUID, second: UUID, amount: int) -> None:
    """Take an amount from the first of two purses, if both together have it."""
    found = await work.purses.load([first, second])
    if found[first].balance + found[second].balance >= amount:
        found[first].balance -= amount
        work.purses.save(found[first])


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    async with schema(database, metadata) as engine:
        yield engine


@pytest.fixture
def transact(engine: Database) -> Transactor[Work]:
    return Transactor(engine, Work)


_numbers = count()


async def store(engine: Database, *balances: int) -> list[UUID]:
    """Store purses with these balances; return their ids, in the order of the balances."""
    stored = [Purse(uuid4(), balance, next(_numbers)) for balance in balances]

    async def body(work: Work) -> None:
        for each in stored:
            work.purses.save(each)

    await Transactor(engine, Work)(body)
    return [each.id for each in stored]


async def balances(database: str, ids: Sequence[UUID]) -> list[int]:
    found = await rows(database, "SELECT id, balance FROM purses WHERE id = ANY($1)", list(ids))
    by_id = {row["id"]: row["balance"] for row in found}
    return [by_id[id_] for id_ in ids]


class Errors:
    """The SQLSTATEs of all errors on a database, and how many of its statements lock rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[str | None] = []
        self.locks = 0
        execute = Connection.execute

        async def noting(connection: Connection, clause: Any, parameters: Any = ()) -> Result:
            if isinstance(clause, Select):
                statement = compiled(clause, ()).sql
                self.locks += "FROM purses" in statement and "FOR NO KEY UPDATE" in statement
            try:
                return await execute(connection, clause, parameters)
            except Exception as error:
                self.states.append(sqlstate_of(error))
                raise

        monkeypatch.setattr(Connection, "execute", noting)


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Errors:
    return Errors(monkeypatch)


async def is_waiting_or_done(database: str, other: asyncio.Task[None]) -> bool:
    return other.done() or await is_waiting_for_a_lock(database)


class TestCommands:
    async def test_two_with_a_rule_over_two_aggregates_run_one_after_the_other(
        self, database: str, engine: Database, transact: Transactor[Work]
    ) -> None:
        first, second = await store(engine, 50, 50)

        async def take_from_the_second(work: Work) -> None:
            await withdraw(work, second, first, 100)

        async def take_from_the_first_meanwhile(work: Work) -> None:
            await withdraw(work, first, second, 100)
            if not others:
                others.append(asyncio.create_task(transact(take_from_the_second)))
                await eventually(lambda: is_waiting_or_done(database, others[0]))

        others: list[asyncio.Task[None]] = []
        await transact(take_from_the_first_meanwhile)
        await others[0]

        assert await balances(database, [first, second]) == [-50, 50]

    async def test_that_load_the_same_aggregates_in_opposite_orders_do_not_deadlock(
        self, database: str, engine: Database, errors: Errors
    ) -> None:
        ids = await store(engine, *[0] * 300)
        transact = Transactor(engine, Work)

        async def add_one(order: Sequence[UUID]) -> None:
            async def body(work: Work) -> None:
                for each in (await work.purses.load(order)).values():
                    each.balance += 1
                    work.purses.save(each)

            await transact(body)

        await asyncio.gather(
            *(add_one(order) for order in [ids, ids[::-1]] * 4), return_exceptions=True
        )

        assert errors.states == []
        assert await balances(database, ids) == [8] * 300


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a subscriber is to withdraw, for an event that names the two purses."""

    first: UUID
    second: UUID
    amount: int

    def record(self, offset: int, partition: int) -> FakeRecord:
        event = encode(
            TaskCreatedV1(task_id=self.first, assignee_id=self.second, name=str(self.amount)),
            id=new_id(),
            source="/test",
            subject=str(uuid4()),
            time=utc_now(),
            sequence=1,
            correlationid="c-1",
        )
        return FakeRecord.of(event, TOPIC.name, offset, partition)


async def take_from(work: Work, event: TaskCreatedV1, _envelope: Envelope) -> None:
    await withdraw(work, event.task_id, event.assignee_id, int(event.name))


WITHDRAWS: EventSubscriber[Work] = EventSubscriber(
    name="test.withdraw",
    topic=TOPIC,
    handlers={TaskCreatedV1: take_from},
    aggregates={
        TaskCreatedV1: [
            Aggregates(
                lambda work: work.purses.load, lambda event: [event.task_id, event.assignee_id]
            )
        ]
    },
)


_partitions = count()


async def process(
    engine: Database,
    withdrawals: Sequence[Withdrawal],
    subscribers: Sequence[EventSubscriber[Work]] = (WITHDRAWS,),
) -> None:
    """Process withdrawals as a chunk of a partition of its own, as a process of its own does."""
    partition = next(_partitions)
    async with engine.begin() as connection:
        await offsets.begin(connection, subscribers, TOPIC.name, {partition: (0, 0)}, utc_now)
    processor = ChunkProcessor(TOPIC, subscribers, engine, Work, utc_now)
    records = [each.record(offset, partition) for offset, each in enumerate(withdrawals)]
    await processor.process(chunk_of(records), FakeChunkSource())


class TestChunks:
    async def test_that_change_the_same_aggregates_in_opposite_orders_do_not_deadlock(
        self, database: str, engine: Database, errors: Errors
    ) -> None:
        ids = await store(engine, *[0] * 200)
        changes = [Withdrawal(id_, id_, 0) for id_ in ids]

        await asyncio.gather(process(engine, changes), process(engine, changes[::-1]))

        assert errors.states == []
        assert errors.locks == 2
        stored = await rows(database, "SELECT DISTINCT version FROM purses")
        assert [row["version"] for row in stored] == [3]

    async def test_lock_once_for_all_subscribers(self, engine: Database, errors: Errors) -> None:
        ids = await store(engine, *[0] * 20)

        await process(
            engine,
            [Withdrawal(id_, id_, 0) for id_ in ids],
            [WITHDRAWS, replace(WITHDRAWS, name="test.withdraw-again")],
        )

        assert errors.locks == 1

    async def test_lock_nothing_for_an_event_that_can_not_be_read(
        self, database: str, engine: Database
    ) -> None:
        (purse,) = await store(engine, 10)
        partition = next(_partitions)
        async with engine.begin() as connection:
            await offsets.begin(connection, [WITHDRAWS], TOPIC.name, {partition: (0, 0)}, utc_now)
        bad = replace(Withdrawal(purse, purse, 1).record(0, partition), value=b"{", headers=())
        good = Withdrawal(purse, purse, 1).record(1, partition)

        await ChunkProcessor(TOPIC, [WITHDRAWS], engine, Work, utc_now).process(
            chunk_of([bad, good]), FakeChunkSource()
        )

        assert await balances(database, [purse]) == [9]


PAIR_OF: Final = {0: 1, 1: 0, 2: 3, 3: 2}
WITHDRAWALS: Final = st.lists(
    st.tuples(st.sampled_from(sorted(PAIR_OF)), st.integers(1, 60)), min_size=1, max_size=6
)


@given(commands=WITHDRAWALS, chunks=st.lists(WITHDRAWALS, min_size=1, max_size=3))
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.generate],  # another run has another interleaving, so nothing is shrunk
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_rule_over_two_aggregates_holds_in_any_interleaving(
    database: str, commands: list[tuple[int, int]], chunks: list[list[tuple[int, int]]]
) -> None:
    async def run_all() -> list[int]:
        async with schema(database, metadata) as engine:
            ids = await store(engine, 50, 50, 50, 50)
            transact = Transactor(engine, Work)

            def withdrawal(purse: int, amount: int) -> Withdrawal:
                return Withdrawal(ids[purse], ids[PAIR_OF[purse]], amount)

            def command(each: Withdrawal) -> Callable[[Work], Awaitable[None]]:
                return lambda work: withdraw(work, each.first, each.second, each.amount)

            await asyncio.gather(
                *(transact(command(withdrawal(*each))) for each in commands),
                *(process(engine, [withdrawal(*each) for each in chunk]) for chunk in chunks),
            )
            return await balances(database, ids)

    left = asyncio.run(run_all())

    assert left[0] + left[1] >= 0
    assert left[2] + left[3] >= 0
    # Each pair had 100, and refused nothing that it had.
    asked = [0, 0]
    for purse, amount in [*commands, *(each for chunk in chunks for each in chunk)]:
        asked[purse // 2] += amount
    for pair, total in enumerate(asked):
        if total <= 100:
            assert left[2 * pair] + left[2 * pair + 1] == 100 - total


class TestFindingByAUniqueColumn:
    async def test_finds_what_is_stored_and_locks_it(
        self, database: str, engine: Database, transact: Transactor[Work]
    ) -> None:
        (id_,) = await store(engine, 50)
        (stored,) = await rows(database, "SELECT number FROM purses WHERE id = $1", id_)

        async def find(work: Work) -> Mapping[int, Purse]:
            found = await work.purses.by_number([stored["number"], -1])
            # The table is locked for changes of what was found, until the end.
            unlocked = await rows(
                database, "SELECT id FROM purses WHERE id = $1 FOR UPDATE SKIP LOCKED", id_
            )
            assert unlocked == []
            return found

        assert {number: each.id for number, each in (await transact(find)).items()} == {
            stored["number"]: id_
        }

    async def test_finds_what_was_saved_in_this_unit_of_work_without_a_flush(
        self, errors: Errors, transact: Transactor[Work]
    ) -> None:
        new = Purse(uuid4(), 1, next(_numbers))

        async def save_and_find(work: Work) -> Mapping[int, Purse]:
            work.purses.save(new)
            return await work.purses.by_number([new.number])

        assert (await transact(save_and_find))[new.number] is new
        assert errors.locks == 0

    async def test_finds_a_changed_aggregate_by_its_new_value_only(
        self, engine: Database, transact: Transactor[Work]
    ) -> None:
        (id_,) = await store(engine, 50)

        async def change_and_find(work: Work) -> tuple[int, int, Mapping[int, Purse]]:
            purse = (await work.purses.load([id_]))[id_]
            old, purse.number = purse.number, next(_numbers)
            work.purses.save(purse)
            return old, purse.number, await work.purses.by_number([old, purse.number])

        old, new, found = await transact(change_and_find)
        assert old != new
        assert {number: each.id for number, each in found.items()} == {new: id_}
