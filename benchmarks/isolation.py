"""Commands at once, on shared accounts and on none: rows locked in order, and SERIALIZABLE.

``python -m benchmarks.isolation`` starts a PostgreSQL of its own. The results are in
docs/decisions/0014-one-isolation-rule.md.
"""

import argparse
import asyncio
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import select

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.postgres_accounts import PostgresAccounts
from accounts_service.domain.account import Account
from chassis import telemetry
from chassis.correlation import new_id
from chassis.migrations import upgrade
from chassis.persistence.database import Connection, Database
from chassis.persistence.outbox import Outbox
from chassis.persistence.transactor import NotInTime, Transactor
from local_cluster.testing import running_infrastructure

CLIENTS: Final = 32
COMMANDS: Final = 20

Choose = Callable[[Sequence[UUID], int], Sequence[UUID]]
"""Returns which accounts a client's next command changes."""


def _now() -> datetime:
    return datetime.now(UTC)


class Unlocked(PostgresAccounts):
    """Reads without a lock: what SERIALIZABLE alone protects."""

    async def _fetch(self, column: str, values: Sequence[Any]) -> None:
        found = await self._connection.execute(
            select(self.table).where(self.table.c[column].in_(values))
        )
        for account in map(self.from_row, found):
            self._loaded.setdefault(account.id, account)


class Work:
    """A unit of work with accounts of either kind."""

    def __init__(self, connection: Connection, kind: type[PostgresAccounts]) -> None:
        self._connection = connection
        self._outbox = Outbox("/accounts", _now)
        self.accounts = kind(connection, self._outbox)

    async def flush(self) -> None:
        await self.accounts.flush()
        await self._outbox.flush(self._connection)


LOCKED, SERIALIZABLE = "READ COMMITTED, locked", "SERIALIZABLE, not locked"


def _transactors(engine: Database, serializable: Database) -> dict[str, Transactor[Work]]:
    return {
        LOCKED: Transactor(engine, lambda connection: Work(connection, PostgresAccounts)),
        SERIALIZABLE: Transactor(serializable, lambda connection: Work(connection, Unlocked)),
    }


CASES: Final[dict[str, Choose]] = {
    "all on one account": lambda ids, _client: ids[:1],
    "two accounts out of eight": lambda ids, _client: random.sample(list(ids[:8]), 2),
    "each on an account of its own": lambda ids, client: ids[client : client + 1],
}


@dataclass
class Measured:
    """What the commands of one case cost in one way."""

    per_second: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    retries: int = 0
    failed: int = 0


async def _measure(
    transact: Transactor[Work], choose: Choose, ids: Sequence[UUID], into: Measured
) -> None:
    async def client(number: int) -> None:
        for _ in range(COMMANDS):
            chosen = choose(ids, number)

            async def change(work: Work, chosen: Sequence[UUID] = chosen) -> None:
                for account in (await work.accounts.load(chosen)).values():
                    account.balance += 1
                    work.accounts.save(account)

            began = time.perf_counter()
            try:
                await transact(change)
            except NotInTime:
                into.failed += 1
            into.ms.append((time.perf_counter() - began) * 1000)

    before = telemetry.transaction_retries._value.get()  # noqa: SLF001 - a counter has no reader
    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    into.per_second.append(CLIENTS * COMMANDS / (time.perf_counter() - began))
    into.retries += int(telemetry.transaction_retries._value.get() - before)  # noqa: SLF001


async def _open_accounts(transact: Transactor[Work]) -> Sequence[UUID]:
    opened = [
        Account.open(
            new_id(),
            user_id=new_id(),
            currency=CURRENCIES["USD"],
            transaction_id=new_id(),
            now=_now(),
        )
        for _ in range(CLIENTS)
    ]

    async def save(work: Work) -> None:
        for account in opened:
            work.accounts.save(account)

    await transact(save)
    return [account.id for account in opened]


async def _run(database_url: str, rounds: int) -> None:
    await upgrade("accounts_service", database_url)
    engine = Database(database_url, pool_size=CLIENTS, application_name="benchmark")
    serializable = Database(
        f"{database_url}?default_transaction_isolation=serializable",
        pool_size=CLIENTS,
        application_name="benchmark",
    )
    ways = _transactors(engine, serializable)
    ids = await _open_accounts(ways[LOCKED])
    print(f"| {CLIENTS} clients | | commands/s | p50 ms | p99 ms | retries per command | failed |")
    print("|---|---|---|---|---|---|---|")
    for case, choose in CASES.items():
        measured = {name: Measured() for name in ways}
        for number in range(rounds):
            # In alternating order, so that other load affects all alike.
            for name in list(ways)[:: 1 if number % 2 else -1]:
                await _measure(ways[name], choose, ids, measured[name])
        for name, each in measured.items():
            _print(case, name, each, rounds)
    await engine.close()
    await serializable.close()


def _print(case: str, name: str, measured: Measured, rounds: int) -> None:
    centiles = statistics.quantiles(measured.ms, n=100)
    retries = measured.retries / (rounds * CLIENTS * COMMANDS)
    print(
        f"| {case} | {name} | {statistics.median(measured.per_second):,.0f} | {centiles[49]:.0f}"
        f" | {centiles[98]:,.0f} | {retries:.2f} | {measured.failed} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.isolation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each way, in alternation")
    rounds = parser.parse_args().rounds
    # A line for each retry would cost more than the retry.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with (
        tempfile.TemporaryDirectory() as directory,
        running_infrastructure(Path(directory) / "cluster", kafka=False) as infrastructure,
    ):
        asyncio.run(_run(infrastructure.postgres_url("accounts"), rounds))


if __name__ == "__main__":
    main()
