"""Aggregates with every kind of column: loaded once, and written in one statement."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from asyncpg import CheckViolationError, UniqueViolationError
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from chassis.domain import Aggregate, DomainError, DomainEvent, Kind
from chassis.persistence import tables
from chassis.persistence.aggregate_table import AggregateTable
from chassis.persistence.database import Connection, Database, Row
from chassis.persistence.outbox import Outbox
from chassis.persistence.transactor import StaleAggregate, Transactor
from contracts.events import IntegrationEvent
from contracts.topics import USERS_USER, Topic
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import count, rows
from tests.integration.statements import create_tables, statements_on

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)

metadata = MetaData(naming_convention=tables.NAMING)


class Mood(StrEnum):
    GLAD = "glad"
    SAD = "sad"


things = Table(
    "things",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("note", Text),
    Column("mood", Enum(Mood, name="mood"), nullable=False),
    Column("tags", JSONB),
    Column("at", DateTime(timezone=True)),
    Column("day", Date),
    Column("price", Numeric(12, 2)),
    Column("open", Boolean, nullable=False),
    Column("bytes", LargeBinary),
    Column("owner", Uuid),
    UniqueConstraint("name"),
)
tables.add_to(metadata)


class NameIsTaken(DomainError):
    kind, code = Kind.CONFLICT, "name-is-taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed(DomainEvent):
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Whispered(DomainEvent):
    """An event that is not published."""


class Thing(Aggregate):
    def __init__(self, id_: UUID, *, version: int = 0, sequence: int = 0, **state: Any) -> None:
        super().__init__(id_, version=version, sequence=sequence)
        self.state = state

    @classmethod
    def named(cls, name: str, **state: Any) -> "Thing":
        thing = cls(uuid4(), **EMPTY, **state)
        thing.rename(name)
        return thing

    def rename(self, name: str) -> None:
        self.state["name"] = name
        self._record(Renamed(name=name, occurred_at=NOW))

    def whisper(self) -> None:
        self._record(Whispered(occurred_at=NOW))


EMPTY: dict[str, Any] = dict.fromkeys(["note", "tags", "at", "day", "price", "bytes", "owner"]) | {
    "mood": Mood.GLAD,
    "open": True,
}
FULL: dict[str, Any] = {
    "note": "Ünïcode, quotes ' \" and {braces, commas}",
    "tags": {"a": [1, None, {"b": "c"}]},
    "at": NOW,
    "day": date(2026, 1, 2),
    "price": Decimal("12.30"),
    "bytes": b"\0\xff{},",
    "owner": UUID(int=7),
    "mood": Mood.SAD,
    "open": False,
}


def publish_renamed(event: Renamed | Whispered) -> Sequence[IntegrationEvent]:
    if isinstance(event, Whispered):
        return []
    return [UserSignedUpV1(user_id=UUID(int=1), username=event.name)]


class Things(AggregateTable[Thing]):
    table = things
    topic: ClassVar[Topic] = USERS_USER
    translate = staticmethod(publish_renamed)
    conflicts: ClassVar[dict[str, type[DomainError]]] = {"things_name_key": NameIsTaken}

    def to_row(self, aggregate: Thing) -> dict[str, Any]:
        return aggregate.state

    def from_row(self, row: Row) -> Thing:
        state = dict(row) | {"mood": Mood[row.mood]}
        return Thing(
            state.pop("id"),
            version=state.pop("version"),
            sequence=state.pop("sequence"),
            **state,
        )


class Work:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.outbox = Outbox("/test", lambda: NOW)
        self.things = Things(connection, self.outbox)

    async def flush(self) -> None:
        await self.things.flush()
        await self.outbox.flush(self.connection)


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    engine = Database(database, pool_size=5, application_name="test")
    async with engine.begin() as connection:
        await create_tables(connection, metadata)
    yield engine
    await engine.close()


@pytest.fixture
def transact(engine: Database) -> Transactor[Work]:
    return Transactor(engine, Work)


async def store(transact: Transactor[Work], *all_: Thing) -> None:
    async def body(work: Work) -> None:
        for each in all_:
            work.things.save(each)

    await transact(body)


async def load(transact: Transactor[Work], *ids: UUID) -> dict[UUID, Thing]:
    async def body(work: Work) -> dict[UUID, Thing]:
        return dict(await work.things.load(ids))

    return await transact(body)


class TestEveryKindOfColumn:
    @pytest.mark.parametrize("state", [EMPTY, FULL], ids=["empty", "full"])
    async def test_is_loaded_as_it_was_stored(
        self, transact: Transactor[Work], state: dict[str, Any]
    ) -> None:
        thing = Thing(uuid4(), name="a", **state)

        await store(transact, thing)

        assert (await load(transact, thing.id))[thing.id].state == thing.state

    async def test_is_loaded_as_it_was_changed_among_others(
        self, database: str, transact: Transactor[Work]
    ) -> None:
        empty, full = Thing(uuid4(), name="a", **EMPTY), Thing(uuid4(), name="b", **FULL)
        await store(transact, empty, full)

        async def swap(work: Work) -> None:
            found = await work.things.load([empty.id, full.id])
            found[empty.id].state = FULL | {"name": "a"}
            found[full.id].state = EMPTY | {"name": "b"}
            for each in found.values():
                work.things.save(each)

        await transact(swap)

        found = await load(transact, empty.id, full.id)
        assert found[empty.id].state == FULL | {"name": "a"}
        assert found[full.id].state == EMPTY | {"name": "b"}
        # None is stored in the same way by an insert and by an update.
        await store(transact, Thing(uuid4(), name="c", **EMPTY))
        nulls = await rows(
            database, "SELECT DISTINCT tags IS NULL AS n FROM things WHERE note IS NULL"
        )
        assert len(nulls) == 1


class TestWriting:
    async def test_new_and_changed_aggregates_are_one_statement_each(
        self, engine: Database, transact: Transactor[Work]
    ) -> None:
        old = [Thing.named(f"old {n}") for n in range(50)]
        await store(transact, *old)

        async def body(work: Work) -> None:
            for each in (await work.things.load([each.id for each in old])).values():
                each.rename(f"new {each.state['name']}")
                work.things.save(each)
            for n in range(50):
                work.things.save(Thing.named(f"{n}"))

        with statements_on(engine) as executed:
            await transact(body)

        verbs = [each.split(maxsplit=1)[0] for each in executed]
        assert [each for each in verbs if each != "SELECT"] == ["INSERT", "UPDATE", "INSERT"]
        found = await load(transact, *(each.id for each in old))
        assert {each.version for each in found.values()} == {2}
        assert {each.sequence for each in found.values()} == {2}

    async def test_an_aggregate_that_is_saved_again_after_a_flush_is_written_again(
        self, transact: Transactor[Work]
    ) -> None:
        thing = Thing.named("a")

        async def body(work: Work) -> None:
            work.things.save(thing)
            await work.flush()
            thing.rename("b")
            work.things.save(thing)

        await transact(body)

        stored = (await load(transact, thing.id))[thing.id]
        assert (stored.state["name"], stored.version, stored.sequence) == ("b", 2, 2)

    async def test_an_aggregate_that_was_changed_since_it_was_loaded_is_stale(
        self, engine: Database, transact: Transactor[Work]
    ) -> None:
        thing = Thing.named("a")
        await store(transact, thing)
        kept, current = await load(transact, thing.id), await load(transact, thing.id)
        await store(transact, *current.values())

        async with engine.begin_rolled_back() as connection:
            work = Work(connection)
            work.things.save(kept[thing.id])
            with pytest.raises(StaleAggregate):
                await work.flush()

    async def test_concurrent_commands_on_one_aggregate_all_happen(
        self, transact: Transactor[Work]
    ) -> None:
        thing = Thing.named("a")
        await store(transact, thing)

        async def add(work: Work) -> None:
            found = (await work.things.load([thing.id]))[thing.id]
            found.rename(found.state["name"] + "+")
            work.things.save(found)

        await asyncio.gather(*(transact(add) for _ in range(5)))

        stored = (await load(transact, thing.id))[thing.id]
        assert (stored.state["name"], stored.version) == ("a+++++", 6)


class TestConflicts:
    async def test_a_violated_constraint_on_an_insert_raises_its_error(
        self, transact: Transactor[Work]
    ) -> None:
        await store(transact, Thing.named("a"))

        with pytest.raises(NameIsTaken):
            await store(transact, Thing.named("a"))

    async def test_an_expected_one_is_no_error_of_the_server_whose_log_would_name_the_values(
        self, engine: Database, transact: Transactor[Work]
    ) -> None:
        await store(transact, Thing.named("a"))

        async with engine.begin_rolled_back() as connection:
            work = Work(connection)
            for name in ("b", "a"):
                work.things.save(Thing.named(name))
            with pytest.raises(NameIsTaken) as refused:
                await work.flush()

        assert refused.value.__cause__ is None

    async def test_two_new_ones_in_one_flush_are_one_too(self, transact: Transactor[Work]) -> None:
        with pytest.raises(NameIsTaken):
            await store(transact, Thing.named("a"), Thing.named("a"))

    async def test_a_violated_constraint_on_an_update_raises_its_error(
        self, transact: Transactor[Work]
    ) -> None:
        thing = Thing.named("b")
        await store(transact, Thing.named("a"), thing)

        async def rename(work: Work) -> None:
            found = (await work.things.load([thing.id]))[thing.id]
            found.rename("a")
            work.things.save(found)

        with pytest.raises(NameIsTaken):
            await transact(rename)

    async def test_a_violated_constraint_without_an_error_is_an_integrity_error(
        self, database: str, transact: Transactor[Work]
    ) -> None:
        await rows(database, "ALTER TABLE things ADD CONSTRAINT odd CHECK (name <> 'odd')")

        with pytest.raises(CheckViolationError):
            await store(transact, Thing.named("odd"))

    async def test_an_id_that_exists_is_an_integrity_error(
        self, transact: Transactor[Work]
    ) -> None:
        thing = Thing.named("a")
        await store(transact, thing)

        with pytest.raises(UniqueViolationError):
            await store(transact, Thing(thing.id, name="b", **EMPTY))

    async def test_one_of_several_concurrent_inserts_of_a_name_succeeds(
        self, database: str, transact: Transactor[Work]
    ) -> None:
        outcomes = await asyncio.gather(
            *(store(transact, Thing.named("a")) for _ in range(5)), return_exceptions=True
        )

        assert outcomes.count(None) == 1
        assert sum(isinstance(each, NameIsTaken) for each in outcomes) == 4
        assert await count(database, "outbox") == 1


class TestPublishing:
    async def test_events_are_written_with_the_state_and_counted_from_one(
        self, database: str, transact: Transactor[Work]
    ) -> None:
        thing = Thing.named("a")
        thing.whisper()
        thing.rename("b")

        await store(transact, thing)

        published = await rows(database, "SELECT * FROM outbox ORDER BY position")
        assert [(row["aggregateid"], row["sequence"]) for row in published] == [
            (str(thing.id), 1),
            (str(thing.id), 2),
        ]
        assert thing.sequence == 2

    async def test_saving_returns_each_event_once(self, engine: Database) -> None:
        async with engine.begin_rolled_back() as connection:
            work, thing = Work(connection), Thing.named("a")

            first, second = work.things.save(thing), work.things.save(thing)

        assert [type(each) for each in first] == [Renamed]
        assert second == []


class TestLoading:
    async def test_reads_each_aggregate_once_and_leaves_out_missing_ones(
        self, engine: Database, transact: Transactor[Work]
    ) -> None:
        thing = Thing.named("a")
        await store(transact, thing)
        async with engine.begin_rolled_back() as connection:
            work = Work(connection)

            first = await work.things.load([thing.id, uuid4()])
            again = await work.things.load([thing.id])

        assert list(first) == [thing.id]
        assert first[thing.id] is again[thing.id]
