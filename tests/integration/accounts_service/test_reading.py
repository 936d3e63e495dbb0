"""Reads of accounts with many transactions: what they cost, and how an export reaches a client."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter
from sqlalchemy import Executable, text

from accounts_service.adapters import postgres_views
from accounts_service.adapters.in_memory import InMemoryAccountViews, InMemoryTransactor
from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from accounts_service.adapters.postgres_views import PostgresAccountViews
from accounts_service.application.ports import AccountViews
from accounts_service.application.queries import (
    BATCH,
    ReadAccount,
    ReadTransactions,
    TransactionFilter,
)
from accounts_service.domain.account import Account, Transaction, TransactionKind
from accounts_service.entrypoints.http import routes
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Transactor
from chassis.settings import ProcessSettings
from chassis.web.app import create_app
from chassis.web.auth import Principal
from chassis.web.health import Health
from tests.integration.explained import pages_read, plan_of
from tests.integration.gateway.toys import gateway, serving
from tests.integration.statements import statements_on
from tests.unit.accounts_service.making import NOW, an_account, now, post
from tests.unit.accounts_service.ports_suite import store

_MANY = 30_000
# Two accounts that sent each other a cent, again and again, and a reversal now and then.
_FILL = text(
    """
    WITH new AS (
        SELECT gen_random_uuid() AS id, n,
            CASE WHEN n % 10_000 = 0 THEN 'reversal' ELSE 'transfer' END AS kind
        FROM generate_series(2, CAST(:many AS bigint)) AS n
    )
    INSERT INTO ledger_entries (transaction_id, account_id, position, kind, delta, balance_after,
        description, occurred_at)
    SELECT id, side.account_id, n, kind, side.delta, n, 'Again',
        CAST(:began AS timestamptz) + n * interval '1 second'
    FROM new,
        (VALUES (CAST(:one AS uuid), 1), (CAST(:other AS uuid), -1)) AS side (account_id, delta)
    """
)
_HEADS = text("UPDATE accounts SET last_position = :many, balance = :many WHERE user_id = :owner")
_ANALYZE = text("ANALYZE ledger_entries")


def open_work(connection: Connection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, now)


def routes_for(views: AccountViews, owner: UUID) -> APIRouter:
    async def signed_in() -> Principal:
        return Principal(owner)

    return routes(ReadAccount(views), ReadTransactions(views, now), signed_in=signed_in)


@asynccontextmanager
async def through_the_gateway(views: AccountViews, owner: UUID) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        title="Accounts",
        description="",
        version="1",
        settings=ProcessSettings(http_port=0),
        routers=[routes_for(views, owner)],
        health=Health(),
    )
    async with serving(app) as url, gateway(accounts_url=url) as client:
        yield client


@pytest.fixture
async def account(engine: Database) -> Account:
    """One whose transactions are exported in two batches."""
    account = an_account()
    post(account, *[1] * (2 * BATCH - 1))
    await store(Transactor(engine, open_work), account)
    return account


@pytest.fixture
async def busy_account(engine: Database) -> Account:
    """One with many transactions."""
    account, other = an_account(), an_account()
    await store(Transactor(engine, open_work), account, other)
    fill = {"many": _MANY, "began": NOW, "one": account.id, "other": other.id}
    async with engine.begin() as connection:
        await connection.execute(_FILL, fill)
        await connection.execute(_HEADS, {"many": _MANY, "owner": account.user_id})
    async with engine.connect() as connection:
        await connection.execute(_ANALYZE)
    return account


async def test_of_many_transactions_only_those_of_the_page_are_looked_at(
    engine: Database, busy_account: Account
) -> None:
    of_account = {"account_id": busy_account.id}
    page = of_account | {"start": 1, "stop": _MANY // 2, "most": 51}
    time = NOW + timedelta(seconds=_MANY // 2)
    statements: Mapping[Executable, Mapping[str, Any]] = {
        postgres_views._TRANSACTIONS: page,
        postgres_views._TRANSACTIONS_OF_KIND: page | {"kind": "reversal"},
        postgres_views._POSITIONS: of_account | {"since": time, "until": time},
        postgres_views._BALANCE_AT: of_account | {"at": time},
    }

    async with engine.connect() as connection:
        for statement, values in statements.items():
            plan = await plan_of(connection, statement, values)
            assert pages_read(plan) < 20, "\n".join(plan)


async def test_an_account_that_is_read_again_is_one_short_statement(
    engine: Database, account: Account
) -> None:
    async with through_the_gateway(PostgresAccountViews(engine), account.user_id) as client:
        first = await client.get("/users/me/account")
        with statements_on(engine) as from_memory:
            again = await client.get(f"/accounts/{account.id}")
        with statements_on(engine) as unchanged:
            known = await client.get(
                f"/accounts/{account.id}", headers={"If-None-Match": first.headers["etag"]}
            )

    assert (again.status_code, again.content) == (200, first.content)
    assert (known.status_code, known.content) == (304, b"")
    assert len(from_memory) == len(unchanged) == 1
    assert "ledger_entries" not in from_memory[0] + unchanged[0]


async def test_an_export_reads_in_batches_and_holds_no_connection_between_them(
    engine: Database, account: Account
) -> None:
    views = PostgresAccountViews(engine)
    head = await views.head(account.id)
    assert head is not None
    sizes, in_use = [], set()

    with statements_on(engine) as executed:
        async for batch in ReadTransactions(views, now).batches(head, TransactionFilter()):
            sizes.append(len(batch))
            in_use.add(engine.in_use)

    assert sizes == [BATCH, BATCH]
    assert in_use == {0}
    assert len(executed) == len(sizes) + 1


class _Paused(InMemoryAccountViews):
    """Waits before the second batch of an export, and may fail then."""

    def __init__(self, transactor: InMemoryTransactor) -> None:
        super().__init__(transactor)
        self.go_on = asyncio.Event()
        self.fails = False
        self._asked = 0

    async def transactions(
        self, account_id: UUID, positions: range, /, *, kind: TransactionKind | None, most: int
    ) -> Sequence[Transaction]:
        self._asked += 1
        if self._asked > 1:
            await self.go_on.wait()
            if self.fails:
                raise ConnectionResetError
        return await super().transactions(account_id, positions, kind=kind, most=most)


class TestAnExportThroughTheGateway:
    @pytest.fixture
    async def exported(self) -> tuple[_Paused, Account]:
        account = an_account()
        post(account, *[1] * BATCH)
        transactor = InMemoryTransactor(now)
        await store(transactor, account)
        return _Paused(transactor), account

    async def test_arrives_while_it_is_read(self, exported: tuple[_Paused, Account]) -> None:
        views, account = exported
        async with (
            through_the_gateway(views, account.user_id) as client,
            client.stream("GET", f"/accounts/{account.id}/transactions.csv") as answer,
        ):
            lines = answer.aiter_lines()
            first = [await anext(lines), await anext(lines)]
            views.go_on.set()
            rest = [line async for line in lines]

        assert answer.status_code == 200
        assert first[0].startswith("position,")
        assert len(first + rest) == 1 + BATCH + 1

    async def test_that_fails_midway_breaks_the_connection(
        self, exported: tuple[_Paused, Account]
    ) -> None:
        views, account = exported
        views.fails = True
        views.go_on.set()
        async with through_the_gateway(views, account.user_id) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"/accounts/{account.id}/transactions.csv")
