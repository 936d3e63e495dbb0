"""Code on a schema that is older says so; code on a newer one runs."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.migrations import upgrade
from chassis.persistence.database import create_engine
from chassis.persistence.schema_version import SchemaVersion
from tests.integration.chassis.path import rows

PACKAGE = "users_service"


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database, pool_size=1, application_name="test")
    yield engine
    await engine.dispose()


class TestASchema:
    async def test_that_was_never_migrated_is_older_than_the_code(
        self, engine: AsyncEngine
    ) -> None:
        assert await SchemaVersion(engine, PACKAGE).trouble() == (
            "older than the code: it has no revision, and lacks chassis_0004, users_0001"
        )

    async def test_is_older_until_it_is_migrated(self, database: str, engine: AsyncEngine) -> None:
        await upgrade(PACKAGE, database)
        await rows(
            database,
            "UPDATE alembic_version SET version_num = 'chassis_0003'"
            " WHERE version_num = 'chassis_0004'",
        )
        version = SchemaVersion(engine, PACKAGE)

        before = await version.trouble()
        await rows(
            database,
            "UPDATE alembic_version SET version_num = 'chassis_0004'"
            " WHERE version_num = 'chassis_0003'",
        )

        assert before == (
            "older than the code: it has chassis_0003, users_0001, and lacks chassis_0004"
        )
        assert await version.trouble() is None

    async def test_that_the_next_release_has_migrated_is_no_trouble(
        self, database: str, engine: AsyncEngine
    ) -> None:
        await upgrade(PACKAGE, database)
        await rows(
            database,
            "UPDATE alembic_version SET version_num = 'users_9999'"
            " WHERE version_num = 'users_0001'",
        )

        assert await SchemaVersion(engine, PACKAGE).trouble() is None

    async def test_of_a_database_that_is_away_is_reported_by_another_check(self) -> None:
        away = create_engine("postgresql://x@127.0.0.1:1/x", pool_size=1, application_name="test")

        assert await SchemaVersion(away, PACKAGE).trouble() is None
