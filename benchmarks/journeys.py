"""What is measured of a sign-up's journey, whoever takes it, and the peers' way to start one."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Final
from uuid import UUID

import asyncpg

from benchmarks.bench import Bench
from benchmarks.figure import Values
from benchmarks.processors import machine_s
from benchmarks.signing_up import (
    OURS,
    SignUp,
    followed,
    many_at_once,
    one_by_one,
    untroubled,
)

UNDER_WAY: Final = 32
_TABLES: Final = {
    "users": """
        CREATE TABLE users (id uuid PRIMARY KEY, username text NOT NULL UNIQUE, email text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now());
        CREATE TABLE tasks (id uuid PRIMARY KEY, assignee_id uuid NOT NULL, name text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now());
        CREATE INDEX ON tasks (assignee_id);
    """,
    "accounts": """
        CREATE TABLE accounts (id uuid PRIMARY KEY, user_id uuid NOT NULL UNIQUE,
            balance bigint NOT NULL, opened_at timestamptz NOT NULL DEFAULT now());
        CREATE TABLE entries (id uuid PRIMARY KEY, account_id uuid NOT NULL REFERENCES accounts,
            amount bigint NOT NULL, description text NOT NULL);
    """,
    "audit": """
        CREATE TABLE records (id uuid PRIMARY KEY, type text NOT NULL, subject text NOT NULL,
            payload text NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now());
        CREATE INDEX ON records (subject);
    """,
    "notification": """
        CREATE TABLE deliveries (id uuid PRIMARY KEY, text text NOT NULL, message_id text NOT NULL,
            sent_at timestamptz NOT NULL DEFAULT now());
    """,
}


async def measured(bench: Bench, sign_up: SignUp, urls: Mapping[str, str] | None = None) -> Values:
    """Return how long one journey takes, how many a second are possible, and what each costs.

    :param urls: as ``followed``
    """
    async with followed(bench, urls) as follow:
        alone = await one_by_one(sign_up, follow, 200 if bench.full else 30)
    for_s = 20 if bench.full else 5
    # Looked for less often, because looking is load too.
    async with followed(bench, urls, every_s=0.01) as follow:
        busy_s, began_s = machine_s(), time.monotonic()
        per_s = await many_at_once(sign_up, follow, under_way=UNDER_WAY, for_s=for_s)
        busy = (machine_s() - busy_s) / (time.monotonic() - began_s)
    return {
        "p50_ms": median(each.took_ms() for each in alone),
        "journeys_per_s": per_s,
        "processor_ms": 1_000 * busy / per_s,
    }


async def plain_databases(bench: Bench) -> Mapping[str, str]:
    """Make a peer's databases, with plain tables for the effects of a sign-up.

    :return: the URL of each by its service: users, accounts, audit, notification
    """
    urls = {}
    for name, tables in _TABLES.items():
        urls[name] = await bench.database()
        connection = await asyncpg.connect(urls[name])
        try:
            await connection.execute(tables)
        finally:
            await connection.close()
    return urls


def variables(urls: Mapping[str, str]) -> Mapping[str, str]:
    """Return URLs as variables: ``USERS_DATABASE_URL`` and so on."""
    return {f"{name.upper()}_DATABASE_URL": url for name, url in urls.items()}


@asynccontextmanager
async def over_lines(port: int, connections: int = UNDER_WAY) -> AsyncIterator[SignUp]:
    """Sign up at a program that takes a name on each line, and answers with the user's id."""
    idle = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
    async with AsyncExitStack() as stack:
        for _ in range(connections):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            idle.put_nowait((reader, writer))

        async def sign_up(name: str) -> UUID:
            reader, writer = await idle.get()
            writer.write(f"{name}\n".encode())
            answer = await reader.readline()
            idle.put_nowait((reader, writer))
            return UUID(answer.decode().strip())

        yield sign_up


@asynccontextmanager
async def without_ours(bench: Bench) -> AsyncIterator[None]:
    """Stop our services during the block, so that a peer has the machine for itself."""
    for name in reversed(OURS):
        await asyncio.to_thread(bench.cluster.stop, name)
    try:
        yield
    finally:
        for name in OURS:
            await asyncio.to_thread(bench.cluster.resume, name)
        await untroubled(bench)
