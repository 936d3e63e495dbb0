"""One process at a time holds a name."""

import asyncio
import contextlib
from typing import Any

import pytest

from chassis.persistence import advisory_lock
from chassis.persistence.advisory_lock import AdvisoryLock
from chassis.testing import eventually
from tests.integration.chassis.path import rows, settings_for
from tests.integration.chassis.proxy import postgres_through_proxy


@pytest.fixture(autouse=True)
def frequent_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisory_lock, "_TRY_EVERY_S", 0.05)
    monkeypatch.setattr(advisory_lock, "_KEEPALIVE_EVERY_S", 0.05)


def lock_on(database: str, name: str = "worker-1") -> AdvisoryLock:
    return AdvisoryLock(settings_for(database, "127.0.0.1:1"), name)


async def holders(database: str) -> int:
    found = await rows(
        database,
        "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    return int(found[0]["n"])


async def sessions(database: str) -> int:
    found = await rows(
        database,
        "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name LIKE 'worker-%'",
    )
    return int(found[0]["n"])


class TestAnAdvisoryLock:
    async def test_is_waited_for_until_it_is_free(self, database: str) -> None:
        async with contextlib.AsyncExitStack() as open_:
            async with lock_on(database).held():
                waiting = asyncio.create_task(open_.enter_async_context(lock_on(database).held()))
                await asyncio.wait([waiting], timeout=0.3)
                assert not waiting.done()

            await asyncio.wait_for(waiting, 30)

            assert await holders(database) == 1

    async def test_of_another_name_is_free(self, database: str) -> None:
        async with lock_on(database).held(), lock_on(database, "worker-2").held():
            assert await holders(database) == 2

    async def test_is_free_after_its_block(self, database: str) -> None:
        async with lock_on(database).held():
            assert await holders(database) == 1

        async def is_free() -> bool:
            return await holders(database) == 0 and await sessions(database) == 0

        await eventually(is_free)

    async def test_is_taken_again_after_its_connection_was_lost(self, database: str) -> None:
        async with postgres_through_proxy(database) as (url, proxy):
            lock = lock_on(url)
            async with lock.held():
                for _ in range(3):
                    proxy.cut()

                    async def is_held_again() -> bool:
                        return await holders(database) == 1

                    await eventually(is_held_again)
                assert lock.is_held()

    async def test_is_lost_when_another_has_had_it_for_long(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(advisory_lock, "_LOST_AFTER_S", 0.3)
        async with postgres_through_proxy(database) as (url, proxy):
            lock = lock_on(url)
            async with lock.held():
                await proxy.refuse()
                async with lock_on(database).held():
                    assert lock.is_held()  # while the database is away no process can take it

                    await proxy.accept()

                    async def is_lost() -> bool:
                        return not lock.is_held()

                    await eventually(is_lost)

    async def test_that_is_no_longer_awaited_leaves_no_session(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried = asyncio.Event()
        try_lock = advisory_lock.try_lock

        async def try_slowly(*arguments: Any) -> bool:
            tried.set()
            await asyncio.sleep(60)
            return await try_lock(*arguments)

        monkeypatch.setattr(advisory_lock, "try_lock", try_slowly)
        waiting = asyncio.create_task(lock_on(database).held().__aenter__())
        await tried.wait()

        waiting.cancel()
        await asyncio.wait([waiting])

        async def none_is_left() -> bool:
            return await sessions(database) == 0

        await eventually(none_is_left)
