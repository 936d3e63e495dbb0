"""Accounts with money in a database, and the service that answers for them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg

from accounts_service.adapters.currencies import CASH_ACCOUNTS
from benchmarks.asking import until_it_answers
from benchmarks.bench import Bench, Program
from chassis.correlation import new_id

_AT_ONCE: Final = 50_000
_OPEN: Final = """
    INSERT INTO accounts (id, kind, user_id, currency, balance, last_position, opened_at, version,
        sequence)
    SELECT id, 'personal', id, 'EUR', $3 * ($2 - 1), $2, now(), 1, 1
    FROM unnest($1::uuid[]) AS id
"""
_MOVE: Final = """
    WITH moved AS (
        SELECT gen_random_uuid() AS transaction_id, id, position,
            CASE position WHEN 1 THEN 'opening' ELSE 'deposit' END AS kind
        FROM unnest($1::uuid[]) AS id, generate_series($2::bigint, $3::bigint) AS position
    )
    INSERT INTO ledger_entries (transaction_id, account_id, position, kind, delta, balance_after,
        description, occurred_at)
    SELECT transaction_id, id, position, kind, CASE kind WHEN 'opening' THEN 0 ELSE $5::bigint END,
        $5::bigint * (position - 1), 'Initial', now() FROM moved
    UNION ALL
    SELECT transaction_id, $4, NULL, kind, -$5::bigint, NULL, 'Initial', now() FROM moved
    WHERE kind = 'deposit'
"""


async def opened(
    url: str, accounts: int, *, transactions: int, minor_units: int = 10
) -> Sequence[UUID]:
    """Open accounts in the service's database; return their ids, which are their owners' too.

    :param transactions: of each account: its opening, and then deposits
    :param minor_units: of each deposit
    """
    ids = [new_id() for _ in range(accounts)]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_OPEN, ids, transactions, minor_units)
        for begin in range(1, transactions + 1, _AT_ONCE):
            end = min(begin + _AT_ONCE - 1, transactions)
            await connection.execute(_MOVE, ids, begin, end, CASH_ACCOUNTS["EUR"], minor_units)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    return ids


@asynccontextmanager
async def answering(bench: Bench, url: str) -> AsyncIterator[tuple[Program, int]]:
    """Run the accounts service without relay and consumers; yield its process and its port.

    :param url: of its database
    """
    # It has the keys of the tokens.
    users = bench.environment(
        "users", database_url=await bench.database("users_service"), roles="api"
    )
    accounts = bench.environment("accounts", database_url=url, roles="api")
    async with (
        bench.program(["users_service"], users),
        bench.program(["accounts_service"], accounts) as program,
    ):
        await until_it_answers(f"{bench.cluster.url('accounts')}/health/ready")
        yield program, int(accounts["ACCOUNTS_HTTP_PORT"])
