"""What tests ask of PostgreSQL beside the services, and what they do to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.faults.harness import System


async def ask(system: System, service: str, query: str, *parameters: Any) -> list[asyncpg.Record]:
    """Return the rows of a query in a service's database."""
    async with _connected(system.cluster.postgres_url(service)) as connection:
        rows: list[asyncpg.Record] = await connection.fetch(query, *parameters)
        return rows


async def run(system: System, service: str, statements: str) -> None:
    """Do something in a service's database, as the service itself may."""
    async with _connected(system.cluster.postgres_url(service)) as connection:
        await connection.execute(statements)


@asynccontextmanager
async def superuser(system: System) -> AsyncIterator["asyncpg.Connection"]:
    """Have a connection that may do everything, in a database of nobody's."""
    async with _connected(system.cluster.superuser_url) as connection:
        yield connection


async def copy_database(system: System, service: str) -> None:
    """Keep a copy of a service's database as it is now; the service is stopped for it."""
    await asyncio.to_thread(system.cluster.stop, service)
    async with superuser(system) as connection:
        await connection.execute(f"CREATE DATABASE {service}_copy TEMPLATE {service}")
    await asyncio.to_thread(system.cluster.resume, service)


async def restore_database(system: System, service: str) -> None:
    """Have the service go on with the copy; what it did since then is gone."""
    await asyncio.to_thread(system.cluster.stop, service)
    async with superuser(system) as connection:
        await connection.execute(f"DROP DATABASE {service} WITH (FORCE)")
        await connection.execute(
            f"CREATE DATABASE {service} TEMPLATE {service}_copy OWNER {service}"
        )
        await connection.execute(f"DROP DATABASE {service}_copy")
    await asyncio.to_thread(system.cluster.resume, service)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator["asyncpg.Connection"]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
