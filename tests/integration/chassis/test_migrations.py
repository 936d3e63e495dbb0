"""The tables that every service has, as its migrations make them."""

import asyncio
import sys

import pytest
from alembic.util.exc import CommandError
from sqlalchemy import Column, Integer, Table

from chassis.migrations import metadata_of
from tests.integration.chassis.path import rows
from tests.integration.migrations import assert_migrations_round_trip

PACKAGE = "tests.integration.chassis.bare_service"


class TestTheChassisTables:
    def test_go_up_and_down_and_up_again_as_the_tables_say(self, database: str) -> None:
        assert_migrations_round_trip(PACKAGE, database)

    def test_that_differ_from_the_migrations_are_noticed(self, database: str) -> None:
        metadata = metadata_of(PACKAGE)
        added = Table("forgotten", metadata, Column("id", Integer, primary_key=True))
        try:
            with pytest.raises(CommandError, match="New upgrade operations detected"):
                assert_migrations_round_trip(PACKAGE, database)
        finally:
            metadata.remove(added)

    async def test_are_made_once_by_two_processes_that_migrate_at_once(self, database: str) -> None:
        migrate = (
            "import asyncio, sys; from chassis.migrations import upgrade;"
            " asyncio.run(upgrade(*sys.argv[1:]))"
        )
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", migrate, PACKAGE, database)
            for _ in range(3)
        ]

        assert [await each.wait() for each in processes] == [0, 0, 0]
        found = await rows(database, "SELECT version_num FROM alembic_version")
        assert [row["version_num"] for row in found] == ["chassis_0001"]
