"""No connection holds a lock for ever, even when its process is frozen."""

import asyncio
import contextlib

import asyncpg
import pytest
from sqlalchemy import text

from chassis.persistence.database import Database, is_connection_lost
from tests.integration.chassis.path import rows
from tests.integration.chassis.proxy import postgres_through_proxy


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

            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as raised:
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
