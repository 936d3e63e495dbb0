import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import Table, func, select

from chassis.persistence.database import Database
from tests.unit.users_service.people import NOW
from tests.unit.users_service.ports_suite import (
    KEPT,
    WINDOW,
    KnownNetworksSuite,
    RecentAttemptsSuite,
    RepositoriesSuite,
    ViewsSuite,
)
from users_service.adapters.postgres_recent_attempts import (
    PostgresKnownNetworks,
    PostgresRecentAttempts,
)
from users_service.adapters.postgres_views import PostgresViews
from users_service.adapters.tables import sign_in_attempts, sign_in_networks
from users_service.application.ports import Views


@pytest.fixture
def views(engine: Database) -> Views:
    return PostgresViews(engine)


@pytest.fixture
def attempts(engine: Database) -> PostgresRecentAttempts:
    return PostgresRecentAttempts(engine, SecretStr("s" * 32))


@pytest.fixture
def known_networks(engine: Database) -> PostgresKnownNetworks:
    return PostgresKnownNetworks(engine, SecretStr("s" * 32), kept=KEPT)


async def rows(engine: Database, table: Table = sign_in_attempts) -> int:
    async with engine.connect() as connection:
        return (await connection.scalar(select(func.count()).select_from(table))) or 0


class TestPostgresRepositories(RepositoriesSuite):
    """Keeps the same promises as the fake."""


class TestPostgresViews(ViewsSuite):
    """Keeps the same promises as the fake."""


class TestPostgresRecentAttempts(RecentAttemptsSuite):
    async def test_concurrent_attempts_are_all_counted(
        self, attempts: PostgresRecentAttempts
    ) -> None:
        counted = await asyncio.gather(
            *(attempts.count("name kate", now=NOW, window=WINDOW) for _ in range(50))
        )

        assert sorted(each.count for each in counted) == list(range(1, 51))

    async def test_concurrent_attempts_start_one_new_window(
        self, attempts: PostgresRecentAttempts
    ) -> None:
        await attempts.count("name kate", now=NOW, window=WINDOW)

        counted = await asyncio.gather(
            *(attempts.count("name kate", now=NOW + WINDOW, window=WINDOW) for _ in range(20))
        )

        assert sorted(each.count for each in counted) == list(range(1, 21))
        assert {each.window_began_at for each in counted} == {NOW + WINDOW}

    async def test_only_counts_of_old_windows_are_deleted(
        self, attempts: PostgresRecentAttempts, engine: Database
    ) -> None:
        for number in range(25):
            await attempts.count(f"name old-{number}", now=NOW, window=WINDOW)
        just_within = NOW + WINDOW - timedelta(microseconds=1)
        await attempts.count("name fresh", now=just_within, window=WINDOW)
        assert await rows(engine) == 26

        for name in ("kate", "joe", "ann"):
            await attempts.count(f"name {name}", now=NOW + WINDOW, window=WINDOW)

        assert await rows(engine) == 4

    async def test_deleting_old_counts_waits_for_no_lock(
        self, attempts: PostgresRecentAttempts, engine: Database
    ) -> None:
        await attempts.count("name kate", now=NOW, window=WINDOW)

        async with engine.begin() as busy:
            await busy.execute(select(sign_in_attempts).with_for_update())
            async with asyncio.timeout(30):
                await attempts.count("name joe", now=NOW + WINDOW, window=WINDOW)

        assert await rows(engine) == 2

    async def test_the_source_is_stored_unreadable(
        self, attempts: PostgresRecentAttempts, engine: Database
    ) -> None:
        await attempts.count("name kate", now=datetime.now(UTC), window=WINDOW)

        async with engine.connect() as connection:
            (row,) = await connection.execute(select(sign_in_attempts))

        assert b"kate" not in row.fingerprint
        assert len(row.fingerprint) == 32


class TestPostgresKnownNetworks(KnownNetworksSuite):
    async def test_only_networks_that_are_forgotten_are_deleted(
        self, known_networks: PostgresKnownNetworks, engine: Database
    ) -> None:
        for number in range(25):
            await known_networks.add("kate", f"192.0.2.{number}", now=NOW)
        for number in range(3):
            await known_networks.add("joe", f"192.0.2.{number}", now=NOW + KEPT)

        assert await rows(engine, sign_in_networks) == 3

    async def test_neither_who_nor_where_can_be_read(
        self, known_networks: PostgresKnownNetworks, engine: Database
    ) -> None:
        await known_networks.add("kate", "192.0.2.1", now=NOW)

        async with engine.connect() as connection:
            (row,) = await connection.execute(select(sign_in_networks))

        assert len(row.fingerprint) == 32
        assert b"kate" not in row.fingerprint
