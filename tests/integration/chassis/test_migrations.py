"""The tables that every service has, as its migrations make them."""

import asyncio

import asyncpg
import pytest
from alembic.util.exc import CommandError
from sqlalchemy import Column, Integer, Table

from chassis.migrations import MIGRATION_LOCK, metadata_of, upgrade
from chassis.testing import eventually
from tests.integration.chassis.path import rows
from tests.integration.migrations import assert_migrations_round_trip

PACKAGE = "tests.integration.chassis.bare_service"


class TestTheChassisTables:
    def test_are_the_same_after_going_up_down_and_up_again(self, database: str) -> None:
        assert_migrations_round_trip(PACKAGE, database)

    def test_that_differ_from_the_migrations_are_an_error(self, database: str) -> None:
        metadata = metadata_of(PACKAGE)
        added = Table("forgotten", metadata, Column("id", Integer, primary_key=True))
        try:
            with pytest.raises(CommandError, match="New upgrade operations detected"):
                assert_migrations_round_trip(PACKAGE, database)
        finally:
            metadata.remove(added)

    async def test_are_migrated_by_one_process_at_a_time(self, database: str) -> None:
        other = await asyncpg.connect(database)
        await other.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
        await other.execute("CREATE TABLE toys (id integer)")
        ours = asyncio.create_task(upgrade(PACKAGE, database))

        async def ours_waits() -> bool:
            asks = "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid <> $1"
            of_lock = " AND datname = current_database() AND query ~* 'advisory|rollback'"
            return bool(await rows(database, asks + of_lock, other.get_server_pid()))

        try:
            await eventually(ours_waits)
            # Waits for every session that has a snapshot, as one that waits in a statement has.
            await other.execute("CREATE INDEX CONCURRENTLY ON toys (id)")
            await other.execute("DROP TABLE toys")
        finally:
            await other.close()
        await ours

        found = await rows(database, "SELECT version_num FROM alembic_version")
        assert [row["version_num"] for row in found] == ["chassis_0005"]
