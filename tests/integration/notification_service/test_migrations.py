import asyncio

import asyncpg
from alembic import command

from chassis.migrations import config_of


async def _tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row["tablename"] for row in rows}
    finally:
        await connection.close()


class TestMigrations:
    def test_the_schema_can_be_migrated_up_down_and_up_again(self, database: str) -> None:
        config = config_of("notification_service", database)

        command.upgrade(config, "heads")
        command.check(config)
        up = asyncio.run(_tables(database))
        command.downgrade(config, "base")
        down = asyncio.run(_tables(database))
        command.upgrade(config, "heads")

        assert {"deliveries", "pauses", "inbox", "progress"} <= up
        assert down == {"alembic_version"}
        assert asyncio.run(_tables(database)) == up
