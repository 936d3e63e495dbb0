"""Connections, transactions and statements; and no connection holds a lock for ever."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, Uuid, bindparam, insert, select, text
from sqlalchemy.dialects.postgresql import JSONB

from chassis.persistence import database as module
from chassis.persistence.database import (
    Connection,
    Database,
    NoConnectionFree,
    NotCommitted,
    WrongNumberOfRows,
    is_connection_lost,
)
from chassis.persistence.transactor import NotInTime, Transactor
from chassis.testing import eventually
from tests.integration.chassis.path import is_waiting_for_a_lock, rows
from tests.integration.chassis.proxy import postgres_through_proxy

# The last one: the server's message came while the driver was about to send.
_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class TestASession:
    async def test_that_idles_in_a_transaction_ends_and_frees_its_locks(
        self, database: str
    ) -> None:
        await rows(database, "CREATE TABLE t AS SELECT 1 AS a")
        engine = Database(database, pool_size=2, application_name="test")
        async with contextlib.AsyncExitStack() as open_:
            # Like a frozen worker: it holds the lock and does nothing more.
            frozen = await open_.enter_async_context(engine.begin_rolled_back())
            await frozen.execute(text("SELECT * FROM t FOR UPDATE"))

            async with asyncio.timeout(30), engine.begin() as other:
                await other.execute(text("SET LOCAL lock_timeout = 0"))
                await other.execute(text("SELECT * FROM t FOR UPDATE"))

            with pytest.raises(_DRIVER_ERRORS) as raised:
                await frozen.execute(text("SELECT 1"))
            assert is_connection_lost(raised.value)
        await engine.close()

    async def test_that_died_in_the_pool_is_replaced(self, database: str) -> None:
        async with postgres_through_proxy(database) as (url, proxy):
            engine = Database(url, pool_size=1, application_name="test")
            async with engine.connect() as connection:
                ended = asyncio.Event()
                driver = connection._driver
                driver.add_termination_listener(lambda _: ended.set())
            proxy.cut()
            await ended.wait()

            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT 2")) == 2
            await engine.close()


things = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("extra", JSONB, nullable=False),
    Column("of", Uuid, nullable=False, default=UUID(int=7)),
)
_NAMES = select(things.c.name).order_by(things.c.id)
_THING = {"name": "a", "extra": {"n": [1, None, "é"]}}


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    await rows(
        database,
        "CREATE TABLE things (id serial PRIMARY KEY, name text NOT NULL UNIQUE,"
        " extra jsonb NOT NULL, of uuid NOT NULL)",
    )
    engine = Database(database, pool_size=2, application_name="test")
    yield engine
    await engine.close()


async def names(engine: Database) -> list[str]:
    async with engine.connect() as connection:
        return await connection.scalars(_NAMES)


class ReadingWork:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def flush(self) -> None:
        pass


async def add_and_fail(opened: AbstractAsyncContextManager[Connection]) -> None:
    async with opened as connection:
        await connection.execute(insert(things), _THING)
        raise RuntimeError


async def write_and_fail(engine: Database) -> None:
    async with engine.begin() as connection:
        connection.wrote(things)
        raise RuntimeError


class TestAConnection:
    async def test_commits_each_statement_by_itself(self, engine: Database) -> None:
        with pytest.raises(RuntimeError):
            await add_and_fail(engine.connect())

        assert await names(engine) == ["a"]

    async def test_in_a_transaction_commits_at_the_end(self, engine: Database) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(things), _THING)
            assert await names(engine) == []

        assert await names(engine) == ["a"]

    async def test_in_a_transaction_that_fails_changes_nothing(self, engine: Database) -> None:
        with pytest.raises(RuntimeError):
            await add_and_fail(engine.begin())

        assert (await names(engine), engine.in_use) == ([], 0)

    async def test_in_a_transaction_to_be_rolled_back_changes_nothing(
        self, engine: Database
    ) -> None:
        async with engine.begin_rolled_back() as connection:
            await connection.execute(insert(things), _THING)
            assert await connection.scalars(_NAMES) == ["a"]

        assert await names(engine) == []

    async def test_that_commits_calls_those_who_wait_for_what_it_wrote_and_nobody_else(
        self, engine: Database
    ) -> None:
        called: list[str] = []
        engine.on_commit(things, lambda: called.append("things"))
        engine.on_commit(Table("others", MetaData()), lambda: called.append("others"))

        async with engine.begin() as connection:
            await connection.execute(insert(things), _THING)
            connection.wrote(things)
            assert called == []
        async with engine.begin():
            pass
        async with engine.begin_rolled_back() as connection:
            connection.wrote(things)
        with pytest.raises(RuntimeError):
            await write_and_fail(engine)

        assert called == ["things"]

    async def test_that_is_cancelled_while_it_waits_for_a_lock_is_used_again(
        self, database: str, engine: Database
    ) -> None:
        async def waits() -> None:
            async with engine.begin() as connection:
                await connection.execute(text("LOCK TABLE things"))

        async with engine.begin() as first:
            await first.execute(text("LOCK TABLE things"))
            second = asyncio.create_task(waits())
            await eventually(lambda: is_waiting_for_a_lock(database))
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second

            assert not await is_waiting_for_a_lock(database)
            assert engine.in_use == 1
        await waits()

    async def test_is_waited_for_only_for_a_time(
        self, engine: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_ACQUIRE_TIMEOUT_S", 0.1)
        async with engine.connect(), engine.connect():
            with pytest.raises(NoConnectionFree):
                async with engine.connect():
                    pass

        assert await names(engine) == []

    async def test_has_savepoints(self, engine: Database) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(things), _THING)
            with pytest.raises(asyncpg.UniqueViolationError):
                async with connection.begin_nested():
                    await connection.execute(insert(things), _THING)

        assert await names(engine) == ["a"]

    async def test_in_use_is_ended_when_the_pool_is_closed(
        self, engine: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_ROLLBACK_TIMEOUT_S", 0.1)
        async with engine.begin_rolled_back() as connection:
            await engine.close()

            with pytest.raises(asyncpg.InterfaceError):
                await connection.execute(_NAMES)

    async def test_is_not_to_be_had_of_a_pool_that_was_closed(self, engine: Database) -> None:
        await engine.close()

        with pytest.raises(RuntimeError, match="closed"):
            await names(engine)

    async def test_whose_statement_failed_is_not_taken_for_committed(
        self, engine: Database
    ) -> None:
        async def goes_on_all_the_same() -> None:
            async with engine.begin() as connection:
                await connection.execute(insert(things), _THING)
                with contextlib.suppress(asyncpg.UniqueViolationError):
                    await connection.execute(insert(things), _THING)

        with pytest.raises(NotCommitted):
            await goes_on_all_the_same()

        assert await names(engine) == []


class TestAServerThatFallsSilent:
    """Whoever is cancelled leaves it within seconds, and is known to have been cancelled."""

    @pytest.fixture
    async def silent(
        self, database: str, engine: Database
    ) -> AsyncIterator[tuple[Database, Callable[[], None]]]:
        speaks = asyncio.Event()
        speaks.set()

        async def wait(_: bytes) -> bool:
            await speaks.wait()
            return True

        async with postgres_through_proxy(database) as (url, proxy):
            proxy.on_request = proxy.on_answer = wait
            through_proxy = Database(url, pool_size=1, application_name="test")
            yield through_proxy, speaks.clear
            speaks.set()
            await through_proxy.close()

    async def is_left(self, engine: Database, waits: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(waits)
        await eventually(lambda: asyncio.sleep(0, engine.in_use))
        await asyncio.sleep(0.1)
        task.cancel()
        async with asyncio.timeout(20):
            await asyncio.wait([task])
        assert task.cancelled()
        assert engine.in_use == 0

    async def test_is_left_within_a_savepoint(
        self, silent: tuple[Database, Callable[[], None]]
    ) -> None:
        engine, fall_silent = silent

        async def waits() -> None:
            async with engine.begin() as connection, connection.begin_nested():
                fall_silent()
                await connection.execute(_NAMES)

        await self.is_left(engine, waits())

    async def test_is_left_by_one_who_writes_many_rows(
        self, silent: tuple[Database, Callable[[], None]]
    ) -> None:
        engine, fall_silent = silent

        async def waits() -> None:
            async with engine.begin() as connection:
                await connection.execute(insert(things), [_THING])
                fall_silent()
                rows_ = [{"name": str(n) * 2_000_000, "extra": {}} for n in range(10)]
                await connection.execute(insert(things), rows_)

        await self.is_left(engine, waits())

    async def test_is_left_by_a_command_at_its_deadline(
        self, silent: tuple[Database, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine, fall_silent = silent
        monkeypatch.setattr(module, "_ROLLBACK_TIMEOUT_S", 60)

        async def read(work: ReadingWork) -> list[str]:
            fall_silent()
            return await work.connection.scalars(_NAMES)

        async with asyncio.timeout(20):
            with pytest.raises(NotInTime):
                await Transactor(engine, ReadingWork, deadline_s=1)(read)


class TestAStatement:
    async def test_has_the_values_that_are_given_and_the_tables_defaults(
        self, engine: Database
    ) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(things), _THING)
            row = (await connection.execute(select(things))).one()

        assert dict(row) == {"id": 1, "of": UUID(int=7), **_THING}
        assert (row.name, row["name"], row[1]) == ("a", "a", "a")

    async def test_of_many_rows_is_carried_out_for_each(self, engine: Database) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(things), [_THING, _THING | {"name": "b"}])

        assert await names(engine) == ["a", "b"]

    async def test_without_a_value_is_refused(self, engine: Database) -> None:
        one = select(things).where(things.c.id == bindparam("of_id"))
        async with engine.connect() as connection:
            with pytest.raises(TypeError, match="of_id"):
                await connection.execute(one)

    async def test_with_a_list_of_values_is_compiled_for_them(self, engine: Database) -> None:
        async with engine.connect() as connection:
            await connection.execute(insert(things), [_THING, _THING | {"name": "b"}])
            some = _NAMES.where(things.c.id.in_([2, 3]))

            assert await connection.scalars(some) == ["b"]

    async def test_tells_how_many_rows_it_changed_unless_it_is_text(self, engine: Database) -> None:
        async with engine.connect() as connection:
            await connection.execute(insert(things), [_THING, _THING | {"name": "b"}])

            assert (await connection.execute(things.delete())).rowcount == 2
            with pytest.raises(TypeError, match="not counted"):
                (await connection.execute(text("DELETE FROM things"))).rowcount  # noqa: B018

    async def test_whose_only_row_is_asked_for_has_one(self, engine: Database) -> None:
        async with engine.connect() as connection:
            with pytest.raises(WrongNumberOfRows):
                (await connection.execute(_NAMES)).one()
            await connection.execute(insert(things), [_THING, _THING | {"name": "b"}])
            with pytest.raises(WrongNumberOfRows):
                (await connection.execute(_NAMES)).one_or_none()

    async def test_that_a_migration_changed_is_prepared_again(
        self, database: str, engine: Database
    ) -> None:
        async def read(work: ReadingWork) -> list[str]:
            return await work.connection.scalars(_NAMES)

        transact = Transactor(engine, ReadingWork)
        await transact(read)
        await rows(database, "ALTER TABLE things ALTER COLUMN name TYPE varchar(40)")

        assert await transact(read) == []
