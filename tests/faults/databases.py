"""Queries and changes that tests make in the services' databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.faults.harness import System


async def rows(system: System, service: str, query: str, *parameters: Any) -> list[asyncpg.Record]:
    """Return the rows of a query in a service's database."""
    async with _connected(system.cluster.postgres_url(service)) as connection:
        found: list[asyncpg.Record] = await connection.fetch(query, *parameters)
        return found


async def execute(system: System, service: str, statements: str) -> None:
    """Run statements in a service's database, with the service's login."""
    async with _connected(system.cluster.postgres_url(service)) as connection:
        await connection.execute(statements)


@asynccontextmanager
async def superuser(system: System) -> AsyncIterator["asyncpg.Connection"]:
    """Yield a superuser's connection, to a database of no service."""
    async with _connected(system.cluster.superuser_url) as connection:
        yield connection


async def copy_database(system: System, service: str) -> None:
    """Copy a service's database; the service is stopped meanwhile."""
    await asyncio.to_thread(system.cluster.stop, service)
    async with superuser(system) as connection:
        await connection.execute(f"CREATE DATABASE {service}_copy TEMPLATE {service}")
    await asyncio.to_thread(system.cluster.resume, service)


async def restore_database(system: System, service: str) -> None:
    """Replace a service's database by its copy; what came later is lost."""
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
