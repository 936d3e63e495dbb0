"""Runs the revisions on one connection; another process waits meanwhile."""

import asyncio
import time
from typing import Final

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from chassis.migrations import MIGRATION_LOCK, check_server

_ASK_EVERY_S: Final = 0.2


def _run(connection: Connection) -> None:
    check_server(int(connection.execute(text("SHOW server_version_num")).scalar_one()))
    # Not by one statement that waits: it has a snapshot, for the end of which an index that the
    # other process makes CONCURRENTLY waits in turn.
    lock = text("SELECT pg_try_advisory_lock(:lock)")
    while not connection.execute(lock, {"lock": MIGRATION_LOCK}).scalar_one():
        connection.rollback()
        time.sleep(_ASK_EVERY_S)
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
    url = make_url(context.config.attributes["database_url"])
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"), poolclass=NullPool, hide_parameters=True
    )
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


asyncio.run(_connect_and_run())
