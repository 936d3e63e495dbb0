"""The unit of work, built in several ways: the cost of opening or changing many accounts, or one.

``python -m benchmarks.unit_of_work`` starts a PostgreSQL of its own. The results are in
docs/decisions/0001-unit-of-work.md and docs/decisions/0020-asyncpg-executes.md.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psutil
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from accounts_service.adapters import tables
from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.postgres_accounts import PostgresAccounts
from accounts_service.domain.account import Account
from benchmarks.inserts import INSERTS, insert_accounts
from chassis.correlation import new_id
from chassis.migrations import upgrade
from chassis.persistence import tables as shared_tables
from chassis.persistence.bulk import insert_rows
from chassis.persistence.database import Connection, Database
from chassis.persistence.outbox import Outbox
from local_cluster.testing import running_infrastructure

CHUNK: Final = 500

Body = Callable[[Connection], Awaitable[None]]


def _now() -> datetime:
    return datetime.now(UTC)


def _outbox() -> Outbox:
    return Outbox("/accounts", _now)


def _opened() -> Account:
    return Account.open(
        new_id(), user_id=new_id(), currency=CURRENCIES["USD"], transaction_id=new_id(), now=_now()
    )


async def _some_ids(connection: Connection) -> Sequence[UUID]:
    found = await connection.execute(select(tables.accounts.c.id).limit(CHUNK))
    return list(found.scalars())


async def open_core(connection: Any, *, count: int) -> None:
    outbox = _outbox()
    accounts = PostgresAccounts(connection, outbox)
    for _ in range(count):
        accounts.save(_opened())
    await accounts.flush()
    if isinstance(connection, Connection):
        await outbox.flush(connection)
    else:
        await insert_rows(connection, shared_tables.outbox, outbox.take_rows())


async def change_core(connection: Connection) -> None:
    accounts = PostgresAccounts(connection, _outbox())
    for account in (await accounts.load(await _some_ids(connection))).values():
        account.balance += 1
        accounts.save(account)
    await accounts.flush()


@dataclass(frozen=True)
class Work:
    """One piece of work, done in several ways, each in its own transactions.

    A way begins with the name of what executes its statements.
    """

    title: str
    events: int
    times: int
    ways: dict[str, Body]


OURS, CORE = "asyncpg: a buffer", "SQLAlchemy: a buffer"
WORKS: Final = (
    Work(
        f"{CHUNK} accounts opened: account, entry and outbox row each",
        CHUNK,
        8,
        {
            OURS: partial(open_core, count=CHUNK),
            CORE: partial(open_core, count=CHUNK),
        },
    ),
    Work(
        f"{CHUNK} accounts loaded and changed",
        CHUNK,
        8,
        {OURS: change_core, CORE: change_core},
    ),
    Work(
        "one account opened by a command",
        1,
        200,
        {
            OURS: partial(open_core, count=1),
            CORE: partial(open_core, count=1),
        },
    ),
    *(
        Work(
            f"rows of {count} accounts inserted, three tables, SQL alone",
            count,
            times,
            {
                f"asyncpg: {name}": partial(insert_accounts, insert=insert, count=count)
                for name, insert in INSERTS.items()
            },
        )
        for count, times in ((CHUNK, 8), (1, 200))
    ),
)


@dataclass
class Cost:
    """What a transaction cost, in milliseconds: one number per repeat."""

    wall: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)


class Stopwatch:
    """Runs a body several times and adds up its cost, here and in the server's process."""

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url, pool_size=1, application_name="benchmark")
        self._engine = create_async_engine(
            database_url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=1
        )

    async def measure(self, work: Work, way: str, cost: Cost) -> None:
        begin: Any = self._engine.begin if way.startswith("SQLAlchemy") else self._database.begin
        body = work.ways[way]
        async with begin() as connection:
            server = psutil.Process(await connection.scalar(text("SELECT pg_backend_pid()")))
        gc.collect()
        server_s, client_s, wall_s = _used_s(server), time.process_time(), time.perf_counter()
        for _ in range(work.times):
            async with begin() as connection:
                await body(connection)
        cost.wall.append((time.perf_counter() - wall_s) * 1000 / work.times)
        cost.client.append((time.process_time() - client_s) * 1000 / work.times)
        cost.server.append((_used_s(server) - server_s) * 1000 / work.times)

    async def close(self) -> None:
        await self._database.close()
        await self._engine.dispose()


def _used_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


async def _measure(database_url: str, repeats: int) -> None:
    await upgrade("accounts_service", database_url)
    stopwatch = Stopwatch(database_url)
    for work in WORKS:
        costs = {name: Cost() for name in work.ways}
        for name in work.ways:
            await stopwatch.measure(work, name, Cost())  # warms up
        for number in range(repeats):
            print(f"{work.title}: repeat {number + 1} of {repeats}", file=sys.stderr)
            # In alternating order, so that other load affects all alike.
            for name in list(work.ways)[:: 1 if number % 2 else -1]:
                await stopwatch.measure(work, name, costs[name])
        _print(work, costs)
    await stopwatch.close()


def _print(work: Work, costs: dict[str, Cost]) -> None:
    print(work.title)
    print(f"{'':22}{'events/s':>10}{'ms, median (spread)':>28}{'processor ms here':>19}", end="")
    print(f"{'in server':>11}")
    for name, cost in costs.items():
        wall = statistics.median(cost.wall)
        spread = f"{wall:.2f} ({min(cost.wall):.2f} to {max(cost.wall):.2f})"
        print(f"  {name:20}{work.events / wall * 1000:10,.0f}{spread:>28}", end="")
        print(f"{statistics.median(cost.client):19.2f}", end="")
        print(f"{statistics.median(cost.server):11.2f}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.unit_of_work", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="of each way, in alternation")
    repeats = parser.parse_args().repeats
    with (
        tempfile.TemporaryDirectory() as directory,
        running_infrastructure(Path(directory) / "cluster", kafka=False) as infrastructure,
    ):
        asyncio.run(_measure(infrastructure.postgres_url("accounts"), repeats))


if __name__ == "__main__":
    main()
