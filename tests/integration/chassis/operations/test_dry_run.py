"""A dry run shows what handling a parked event would change, and changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    Column,
    Executable,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    delete,
    insert,
    select,
    update,
)

from chassis.backoff import Backoff
from chassis.consuming import retry_policy
from chassis.consuming.dead_letters import SeenAlready
from chassis.consuming.subscribers import EventSubscriber
from chassis.operations import dry_run as dry_run_module
from chassis.operations.dead_letter_rows import NoSuchParkedEvent, OneParkedEvent
from chassis.operations.dry_run import DryRunBody, TableChanges, dry_run
from chassis.persistence.bulk import insert_rows
from chassis.persistence.outbox import Outbox
from chassis.persistence.transactor import StaleAggregate
from chassis.web.problems import TemporarilyUnavailable
from contracts.envelope import Envelope, decode
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import PathWork, count, rows, schema, signed_up, utc_now
from tests.integration.chassis.service import TOPIC, NameIsTaken
from tests.integration.statements import create_tables

from .operating import acts_of
from .parking import NAME, Shop, without_label

goods_metadata = MetaData()
owners = Table("owners", goods_metadata, Column("id", Uuid, primary_key=True))
goods = Table(
    "goods",
    goods_metadata,
    Column("name", Text, primary_key=True),
    Column("left", Integer),
    Column("password_hash", Text),
    Column("picture", LargeBinary),
)
OWNER = UUID(int=1)

Effect = Callable[[PathWork, Envelope], Awaitable[None]]


async def fails(_work: PathWork, _envelope: Envelope) -> None:
    raise NameIsTaken("taken")


class Warehouse(Shop):
    """A shop with a subscriber that runs a function of the test."""

    effect: Effect = staticmethod(fails)

    def _handler(self) -> EventSubscriber[PathWork]:
        async def handle(work: PathWork, _event: UserSignedUpV1, envelope: Envelope) -> None:
            await self.effect(work, envelope)

        return EventSubscriber(name=NAME, topic=TOPIC, handlers={UserSignedUpV1: handle})

    async def parked_with(self, effect: Effect) -> UUID:
        """Park an event, and have it handled by this function from now on."""
        await self.comes(signed_up(uuid4(), 1))
        self.effect = effect
        (id_,) = (await self.ids()).values()
        return id_

    async def try_out(self, id_: UUID) -> DryRunBody:
        return await dry_run(self.runtime, OneParkedEvent(parked_id=id_))

    async def try_with(self, *statements: Executable) -> DryRunBody:
        async def effect(work: PathWork, _envelope: Envelope) -> None:
            for each in statements:
                await work.connection.execute(each)

        return await self.try_out(await self.parked_with(effect))

    async def snapshot(self) -> list[list[Any]]:
        """Return all rows of the database."""
        tables = await rows(
            self.service.database, "SELECT relname AS name FROM pg_stat_user_tables ORDER BY 1"
        )
        return [
            await rows(self.service.database, f"SELECT * FROM {each['name']}")  # noqa: S608
            for each in tables
        ]


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Warehouse]:
    async with schema(database) as engine:
        async with engine.begin() as connection:
            await create_tables(connection, goods_metadata)
            await connection.execute(owners.insert().values(id=OWNER))
            await connection.execute(
                goods.insert(),
                [
                    {"name": name, "left": left, "password_hash": "x", "picture": b"abc"}
                    for name, left in [("book", 3), ("lamp", 7)]
                ],
            )
        yield Warehouse(database, engine)


class TestWhatItShows:
    async def test_is_what_the_unit_of_work_wrote(self, shop: Warehouse) -> None:
        tried = await shop.try_with(
            insert(goods).values(name="chair", left=1),
            insert(owners).values(id=UUID(int=2)),
            delete(goods).where(goods.c.name == "lamp"),
        )

        assert tried.stays_parked is None
        assert tried.changes == [
            TableChanges(
                table="goods",
                inserted=1,
                updated=0,
                deleted=1,
                rows=[{"name": "chair", "left": 1}],
            ),
            TableChanges(
                table="owners", inserted=1, updated=0, deleted=0, rows=[{"id": str(UUID(int=2))}]
            ),
        ]

    async def test_is_only_a_count_where_a_statement_does_not_contain_its_rows(
        self, shop: Warehouse
    ) -> None:
        tried = await shop.try_with(update(goods).values(left=goods.c.left - 1))

        (table,) = tried.changes
        assert (table.updated, table.rows) == (2, None)

    async def test_leaves_out_rows_that_are_only_locked(self, shop: Warehouse) -> None:
        tried = await shop.try_with(
            select(goods).with_for_update(), insert(goods).values(name="desk")
        )

        (table,) = tried.changes
        assert (table.inserted, table.rows) == (1, [{"name": "desk"}])

    async def test_hides_secrets_and_the_content_of_bytes(self, shop: Warehouse) -> None:
        tried = await shop.try_with(
            insert(goods).values(name="safe", password_hash="x", picture=b"abc")
        )

        (table,) = tried.changes
        assert table.rows == [{"name": "safe", "password_hash": "…", "picture": "3 bytes"}]

    async def test_shows_a_bounded_number_of_rows_and_counts_all(self, shop: Warehouse) -> None:
        async def effect(work: PathWork, _envelope: Envelope) -> None:
            await insert_rows(work.connection, goods, [{"name": f"n{n}"} for n in range(500)])

        tried = await shop.try_out(await shop.parked_with(effect))

        (table,) = tried.changes
        assert table.rows is not None
        assert (table.inserted, len(table.rows)) == (500, dry_run_module.MOST_ROWS)

    async def test_shows_the_events_that_would_be_published(self, shop: Warehouse) -> None:
        async def publish(work: PathWork, envelope: Envelope) -> None:
            outbox = Outbox("/test", utc_now)
            outbox.append(
                UserSignedUpV1(user_id=OWNER, username="bob"),
                topic=TOPIC,
                subject=OWNER,
                sequence=4,
                occurred_at=utc_now(),
            )
            await outbox.flush(work.connection)

        tried = await shop.try_out(await shop.parked_with(publish))

        assert tried.changes == []
        (event,) = tried.events
        assert event.topic == TOPIC.name
        assert event.event["data"]["username"] == "bob"
        assert await count(shop.service.database, "outbox") == 0

    async def test_does_not_count_what_was_done_before_on_the_same_connection(
        self, shop: Warehouse
    ) -> None:
        async with shop.runtime.database.begin() as connection:
            await connection.execute(insert(goods).values(name="before"))

        tried = await shop.try_with(insert(owners).values(id=uuid4()))

        assert [each.table for each in tried.changes] == ["owners"]

    async def test_is_why_it_would_fail(self, shop: Warehouse) -> None:
        tried = await shop.try_out(await shop.parked_with(fails))

        assert tried.stays_parked is not None
        assert (tried.stays_parked.error_code, tried.changes) == ("name-is-taken", [])

    async def test_is_the_database_error_that_it_would_fail_with(self, shop: Warehouse) -> None:
        tried = await shop.try_with(insert(goods).values(name="book"))

        assert tried.stays_parked is not None
        assert tried.stays_parked.error_message == "UniqueViolationError"


class TestNothing:
    async def test_is_changed_published_or_counted(self, shop: Warehouse) -> None:
        async def effect(work: PathWork, envelope: Envelope) -> None:
            work.handled(NAME, envelope)

        id_ = await shop.parked_with(effect)
        before = await shop.snapshot()

        tried = await shop.try_out(id_)

        assert [each.table for each in tried.changes] == ["effects"]
        assert await shop.snapshot() == before
        assert await acts_of(shop.service.database) == []
        assert shop.woken == 0

    async def test_is_changed_when_it_fails(self, shop: Warehouse) -> None:
        id_ = await shop.parked_with(fails)
        before = await shop.snapshot()

        await shop.try_out(id_)

        assert await shop.snapshot() == before

    async def test_of_bytes_that_had_no_subject_is_counted(self, shop: Warehouse) -> None:
        async def effect(work: PathWork, envelope: Envelope) -> None:
            work.handled(NAME, envelope)

        ada = uuid4()
        await shop.comes(without_label(ada, 1))
        (id_,) = (await shop.ids()).values()
        payload = decode(signed_up(ada, 1).payload).model_dump(mode="json")
        await shop.edit(id_, payload)
        shop.effect = effect
        before = await shop.snapshot()

        tried = await shop.try_out(id_)

        assert [each.table for each in tried.changes] == ["effects"]
        assert await shop.snapshot() == before


class TestARefusal:
    async def test_of_what_is_not_there(self, shop: Warehouse) -> None:
        with pytest.raises(NoSuchParkedEvent):
            await shop.try_out(uuid4())

    async def test_of_what_was_seen_already(self, shop: Warehouse) -> None:
        async def effect(work: PathWork, envelope: Envelope) -> None:
            work.handled(NAME, envelope)

        ada = uuid4()
        event = signed_up(ada, 1)
        await shop.comes(without_label(ada, 1))
        (id_,) = (await shop.ids()).values()
        shop.effect = effect
        await shop.comes(event)
        await shop.edit(id_, decode(event.payload).model_dump(mode="json"))

        with pytest.raises(SeenAlready):
            await shop.try_out(id_)

    async def test_for_now(self, shop: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(first_s=0.02, longest_s=0.02))

        async def in_the_way(_work: PathWork, _envelope: Envelope) -> None:
            raise StaleAggregate

        with pytest.raises(TemporarilyUnavailable):
            await shop.try_out(await shop.parked_with(in_the_way))

    async def test_of_a_handler_that_hangs(
        self, shop: Warehouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dry_run_module, "_TIMEOUT_S", 0.3)

        async def hang(_work: PathWork, _envelope: Envelope) -> None:
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await shop.try_out(await shop.parked_with(hang))
