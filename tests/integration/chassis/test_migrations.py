"""The tables that every service has, as its migrations make them."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from alembic.util.exc import CommandError
from sqlalchemy import Column, Integer, Table
from sqlalchemy.exc import DBAPIError

from chassis import migrations
from chassis.migrations import MIGRATION_LOCK, metadata_of, upgrade
from chassis.persistence.database import is_conflict
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
        assert [row["version_num"] for row in found] == ["chassis_0006"]


class TestALockedTable:
    async def test_is_waited_for_only_briefly_and_nothing_is_changed(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(migrations, "LOCK_TIMEOUT_S", 0.2)
        await upgrade(PACKAGE, database)
        await rows(database, "UPDATE alembic_version SET version_num = 'chassis_0002'")
        other = await asyncpg.connect(database)
        await other.execute("BEGIN; LOCK TABLE inbox_missing IN ACCESS SHARE MODE")

        try:
            with pytest.raises(DBAPIError) as raised:
                await asyncio.wait_for(upgrade(PACKAGE, database), 30)
        finally:
            await other.close()

        assert raised.value.orig is not None
        assert is_conflict(raised.value.orig)
        found = await rows(database, "SELECT version_num FROM alembic_version")
        assert [row["version_num"] for row in found] == ["chassis_0002"]


class TestAnIndexMadeConcurrently:
    async def test_keeps_no_writer_waiting(
        self, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(migrations, "LOCK_TIMEOUT_S", 0.2)
        service = tmp_path / "growing_service" / "migrations"
        (service / "versions").mkdir(parents=True)
        (service.parent / "__init__.py").touch()
        (service / "__init__.py").write_text(f"from {PACKAGE}.migrations import metadata\n")
        (service / "versions" / "growing_0001.py").write_text(_GROWING)
        monkeypatch.syspath_prepend(tmp_path)
        await upgrade(PACKAGE, database)
        writer = await asyncpg.connect(database)
        await writer.execute("BEGIN; LOCK TABLE inbox IN ROW EXCLUSIVE MODE")

        growing = asyncio.create_task(upgrade("growing_service", database))

        async def it_waits() -> bool:
            return bool(await rows(database, "SELECT FROM pg_locks WHERE NOT granted"))

        await eventually(it_waits)
        # Longer than a lock is waited for elsewhere; and nobody else has to wait meanwhile.
        await asyncio.wait([growing], timeout=2 * migrations.LOCK_TIMEOUT_S)
        other = await asyncpg.connect(database)
        await other.execute("SET lock_timeout = '1s'; LOCK TABLE inbox IN ROW EXCLUSIVE MODE")
        await other.close()
        await writer.close()
        await growing

        found = await rows(
            database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'new'::regclass"
        )
        assert [row["indisvalid"] for row in found] == [True]


_GROWING = """
from alembic import op
from chassis.migrations import concurrently

revision: str = "growing_0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    with concurrently():
        op.create_index("new", "inbox", ["greatest_event_id"], postgresql_concurrently=True)
"""
