"""Code on a schema that is older says so; code on a newer one runs."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest

import chassis.migrations
import users_service.migrations
from chassis.migrations import SchemaIsNewer, upgrade
from chassis.persistence.database import Database
from chassis.persistence.schema_version import SchemaVersion
from tests.integration.chassis.path import rows

PACKAGE = "users_service"


def newest_of(package: ModuleType, name: str) -> str:
    versions = Path(package.__file__ or "").with_name("versions")
    return max(file.stem[: len(f"{name}_0000")] for file in versions.glob(f"{name}_*.py"))


#: The newest revisions of the chassis and of the service.
NEWEST = newest_of(chassis.migrations, "chassis")
NEWEST_OF_USERS = newest_of(users_service.migrations, "users")


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    engine = Database(database, pool_size=1, application_name="test")
    yield engine
    await engine.close()


class TestASchema:
    async def test_that_was_never_migrated_is_older_than_the_code(self, engine: Database) -> None:
        assert await SchemaVersion(engine, PACKAGE).trouble() == (
            f"older than the code: it has no revision, and lacks {NEWEST}, {NEWEST_OF_USERS}"
        )

    async def test_is_older_until_it_is_migrated(self, database: str, engine: Database) -> None:
        await upgrade(PACKAGE, database)
        await rows(
            database,
            "UPDATE alembic_version SET version_num = $1 WHERE version_num = $2",
            "chassis_0003",
            NEWEST,
        )
        version = SchemaVersion(engine, PACKAGE)

        before = await version.trouble()
        await rows(
            database,
            "UPDATE alembic_version SET version_num = $1 WHERE version_num = $2",
            NEWEST,
            "chassis_0003",
        )

        assert before == (
            f"older than the code: it has chassis_0003, {NEWEST_OF_USERS}, and lacks {NEWEST}"
        )
        assert await version.trouble() is None

    async def test_that_the_next_release_has_migrated_is_no_trouble(
        self, database: str, engine: Database
    ) -> None:
        await upgrade(PACKAGE, database)
        await rows(
            database,
            "UPDATE alembic_version SET version_num = 'users_9999' WHERE version_num = $1",
            NEWEST_OF_USERS,
        )

        assert await SchemaVersion(engine, PACKAGE).trouble() is None

    async def test_that_newer_code_has_migrated_is_named_by_a_migration(
        self, database: str
    ) -> None:
        await upgrade(PACKAGE, database)
        await rows(
            database,
            "UPDATE alembic_version SET version_num = 'users_9999' WHERE version_num = $1",
            NEWEST_OF_USERS,
        )

        with pytest.raises(SchemaIsNewer, match="newer code has migrated it") as refused:
            await upgrade(PACKAGE, database)

        assert "users_9999" in str(refused.value)

    async def test_of_a_database_that_is_away_is_reported_by_another_check(self) -> None:
        away = Database("postgresql://x@127.0.0.1:1/x", pool_size=1, application_name="test")

        assert await SchemaVersion(away, PACKAGE).trouble() is None
