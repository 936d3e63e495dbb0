"""Runs the revisions on one connection; another process waits meanwhile."""

import asyncio
import time
from typing import Final

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from chassis.migrations import LOCK_TIMEOUT_S, MIGRATION_LOCK, check_server
from chassis.persistence import connecting

_ASK_EVERY_S: Final = 0.2


def _run(connection: Connection) -> None:
    check_server(int(connection.execute(text("SHOW server_version_num")).scalar_one()))
    # Not by one statement that waits: it has a snapshot, for the end of which an index that the
    # other process makes CONCURRENTLY waits in turn.
    lock = text("SELECT pg_try_advisory_lock(:lock)")
    while not connection.execute(lock, {"lock": MIGRATION_LOCK}).scalar_one():
        connection.rollback()
        time.sleep(_ASK_EVERY_S)
    # Not for the lock before: another process migrates for as long as it takes.
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes["metadata"],
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


async def _connect_and_run() -> None:
    async def connect() -> "asyncpg.Connection":
        url = context.config.attributes["database_url"]
        return await connecting.connect(url, application_name="migrations", settings={})

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=connect, poolclass=NullPool, hide_parameters=True
    )
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


asyncio.run(_connect_and_run())
