"""Money on PostgreSQL: what many do at once, and what is read back."""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from accounts_service.adapters.tables import accounts, holds, ledger_entries
from accounts_service.application.hold_money import (
    Actor,
    EndHoldHandler,
    HoldExpiry,
    PlaceHold,
    PlaceHoldHandler,
    expire_holds,
)
from accounts_service.application.post_transaction import PostTransaction, PostTransactionHandler
from accounts_service.application.transfer import (
    ReverseTransferHandler,
    TransferHandler,
    TransferMoney,
)
from accounts_service.domain.account import Account, TransactionKind
from accounts_service.domain.errors import AlreadyReversed, HoldNotOpen, InsufficientFunds
from chassis.correlation import new_id
from chassis.persistence.database import Connection, Database
from chassis.persistence.tables import timers
from chassis.persistence.transactor import Transactor
from chassis.timers.timer import DueTimer
from tests.integration.statements import statements_on
from tests.unit.accounts_service.making import an_account, post
from tests.unit.accounts_service.ports_suite import store

T = TypeVar("T")
Transact = Transactor[PostgresAccountsWork]

POST = PostTransactionHandler(new_id, lambda: datetime.now(UTC))
TRANSFER = TransferHandler(new_id, lambda: datetime.now(UTC))
REVERSE = ReverseTransferHandler(new_id, lambda: datetime.now(UTC))
PLACE = PlaceHoldHandler(new_id)
END = EndHoldHandler(new_id, lambda: datetime.now(UTC))

IS_OVER = """
WITH over AS (UPDATE holds SET expires_at = clock_timestamp() WHERE state = 'open')
UPDATE accounts SET next_expiry = clock_timestamp() WHERE held > 0
"""


def open_work(connection: Connection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, lambda: datetime.now(UTC))


@pytest.fixture
def transact(engine: Database) -> Transact:
    return Transactor(engine, open_work)


@pytest.fixture
async def payer(transact: Transact) -> Account:
    """An account with 100.00."""
    account = an_account()
    post(account, 10_000)
    await store(transact, account)
    return account


@pytest.fixture
async def payee(transact: Transact) -> Account:
    account = an_account()
    await store(transact, account)
    return account


async def withdraw(transact: Transact, account: Account, amount: str) -> None:
    command = PostTransaction(account.id, TransactionKind.WITHDRAWAL, amount, "Lunch")
    await transact(lambda work: POST(work, account.user_id, command))


async def transfer(transact: Transact, payer: Account, payee: Account, amount: str) -> UUID:
    command = TransferMoney(payer.id, payee.id, amount, "Lunch")
    return (await transact(lambda work: TRANSFER(work, payer.user_id, command))).transaction.id


async def hold(transact: Transact, payer: Account, payee: Account, amount: str) -> UUID:
    command = PlaceHold(payer.id, payee.id, amount, "A room", timedelta(hours=1))
    placed, _account = await transact(lambda work: PLACE(work, payer.user_id, command))
    return placed.id


async def outcomes(calls: Sequence[Awaitable[T]]) -> list[T | BaseException]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def row_of(engine: Database, account: Account) -> Any:
    async with engine.connect() as connection:
        found = await connection.execute(select(accounts).where(accounts.c.id == account.id))
        return found.one()


class TestAtOnce:
    async def test_withdrawals_take_no_more_than_there_is(
        self, engine: Database, transact: Transact, payer: Account
    ) -> None:
        done = await outcomes([withdraw(transact, payer, "15") for _ in range(12)])

        refused = [each for each in done if each is not None]
        assert len(refused) == 6
        assert {type(each) for each in refused} == {InsufficientFunds}
        assert (await row_of(engine, payer)).balance == 1_000

    async def test_transfers_in_both_directions_never_wait_for_each_other(
        self, engine: Database, transact: Transact, payer: Account, payee: Account
    ) -> None:
        await transfer(transact, payer, payee, "50")

        done = await outcomes(
            [
                transfer(transact, *parties, "1")
                for parties in ((payer, payee), (payee, payer))
                for _ in range(10)
            ]
        )

        assert all(isinstance(each, UUID) for each in done)
        async with engine.connect() as connection:
            total = await connection.scalar(select(func.sum(ledger_entries.c.delta)))
        assert total == 0
        assert [(await row_of(engine, each)).balance for each in (payer, payee)] == [5_000, 5_000]

    async def test_reversals_of_one_transfer_move_money_once(
        self, engine: Database, transact: Transact, payer: Account, payee: Account
    ) -> None:
        made = await transfer(transact, payer, payee, "30")
        await transfer(transact, payer, payee, "30")

        done = await outcomes(
            [
                transact(lambda work: REVERSE(work, made, by=new_id(), reason="a mistake"))
                for _ in range(5)
            ]
        )

        refused = [each for each in done if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [AlreadyReversed] * 4
        assert (await row_of(engine, payee)).balance == 3_000

    async def test_a_hold_ends_once(
        self, engine: Database, transact: Transact, payer: Account, payee: Account
    ) -> None:
        held = await hold(transact, payer, payee, "60")
        theirs = Actor(payee.user_id, operator=False)

        done = await outcomes(
            [
                *(transact(lambda work: END.capture(work, theirs, held, None)) for _ in range(3)),
                *(transact(lambda work: END.release(work, theirs, held)) for _ in range(3)),
            ]
        )

        refused = [each for each in done if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [HoldNotOpen] * 5
        assert (await row_of(engine, payer)).held == 0


class TestHolds:
    async def test_what_is_held_is_a_part_of_the_accounts_row(
        self, engine: Database, transact: Transact, payer: Account, payee: Account
    ) -> None:
        held = await hold(transact, payer, payee, "60")

        account = await row_of(engine, payer)
        async with engine.connect() as connection:
            [stored] = await connection.execute(select(holds))
            [timer] = await connection.execute(select(timers))
        assert (account.balance, account.held) == (10_000, 6_000)
        assert (stored.id, stored.amount, stored.state) == (held, 6_000, "open")
        assert account.next_expiry == stored.expires_at == timer.due_at
        assert (timer.kind, timer.subject) == ("accounts.hold-expiry", payer.id)
        with pytest.raises(InsufficientFunds):
            await withdraw(transact, payer, "40.01")

    async def test_one_whose_time_is_over_counts_for_nothing_before_its_timer_fires(
        self, engine: Database, transact: Transact, payer: Account, payee: Account
    ) -> None:
        held = await hold(transact, payer, payee, "60")
        async with engine.connect() as connection:
            await connection.execute(text(IS_OVER))

        with pytest.raises(HoldNotOpen):
            await transact(
                lambda work: END.capture(work, Actor(payee.user_id, operator=False), held, None)
            )
        await withdraw(transact, payer, "100")

        assert (await row_of(engine, payer)).held == 0
        async with engine.connect() as connection:
            assert await connection.scalar(select(holds.c.state)) == "expired"

    async def test_the_timer_writes_what_has_expired(
        self, engine: Database, transact: Transact, payer: Account, payee: Account
    ) -> None:
        held = await hold(transact, payer, payee, "60")
        due = DueTimer(new_id(), payer.id, datetime.now(UTC))

        await transact(lambda work: expire_holds(work, HoldExpiry(hold_id=held), due))
        assert (await row_of(engine, payer)).held == 6_000, "its time is not over"
        async with engine.connect() as connection:
            await connection.execute(text(IS_OVER))
        await transact(lambda work: expire_holds(work, HoldExpiry(hold_id=held), due))

        account = await row_of(engine, payer)
        assert (account.held, account.next_expiry) == (0, None)


class TestStatements:
    async def test_a_transfer_is_one_statement_for_each_table(
        self, engine: Database, transact: Transact, payer: Account, payee: Account
    ) -> None:
        with statements_on(engine) as executed:
            await transfer(transact, payer, payee, "1")

        assert [each.split()[0] for each in executed if "INTO" in each or "UPDATE acc" in each] == [
            "UPDATE",
            "INSERT",
            "INSERT",
        ]
        assert len(executed) == 4, "and one that locks both accounts"
