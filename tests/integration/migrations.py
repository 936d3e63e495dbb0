"""The test of every service's migrations."""

import asyncio

import asyncpg
from alembic import command

from chassis.migrations import config_of


def assert_migrations_round_trip(package: str, database_url: str) -> None:
    """Migrate up, down and up again: up gives the tables of the code, down removes all."""
    config = config_of(package, database_url)
    command.upgrade(config, "heads")
    command.check(config)
    up = asyncio.run(_relations(database_url))

    command.downgrade(config, "base")

    assert asyncio.run(_relations(database_url)) == {"alembic_version", "alembic_version_pkc"}

    command.upgrade(config, "heads")
    command.check(config)
    assert asyncio.run(_relations(database_url)) == up


async def _relations(url: str) -> set[str]:
    """Return the names of all tables, indexes, sequences and views."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
        return {row["relname"] for row in rows}
    finally:
        await connection.close()
