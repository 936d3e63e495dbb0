"""The component that adds the ledger up."""

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from accounts_service.adapters.ledger_check import LedgerCheck
from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from chassis.persistence.database import Database
from chassis.persistence.transactor import Transactor
from tests.unit.accounts_service.making import an_account, now, post
from tests.unit.accounts_service.ports_suite import store

A_BALANCE = "UPDATE accounts SET balance = balance + 1 WHERE kind = 'personal'"
AN_ENTRY = """
INSERT INTO ledger_entries (transaction_id, account_id, kind, delta, description, occurred_at)
SELECT gen_random_uuid(), id, 'deposit', 5, 'Found', now() FROM accounts
WHERE kind = 'cash' AND currency = 'USD'
"""


def checked_at() -> float:
    return REGISTRY.get_sample_value("accounts_ledger_checked_timestamp_seconds") or 0.0


@pytest.fixture
async def check(engine: Database) -> LedgerCheck:
    account = an_account()
    post(account, 700, -50)
    transact = Transactor(engine, lambda connection: PostgresAccountsWork(connection, now))
    await store(transact, account)
    return LedgerCheck(engine)


class TestTheCheck:
    async def test_has_no_trouble_where_everything_adds_up(self, check: LedgerCheck) -> None:
        await check.step()

        assert check.trouble() is None

    @pytest.mark.parametrize(
        ("statement", "trouble"),
        [
            (A_BALANCE, "all entries make 0, and 1 balances are wrong"),
            (AN_ENTRY, "all entries make 5, and 0 balances are wrong"),
        ],
        ids=["a balance", "an entry"],
    )
    async def test_says_what_was_written_past_the_database(
        self, engine: Database, check: LedgerCheck, statement: str, trouble: str
    ) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE ledger_entries DISABLE TRIGGER USER"))
            await connection.execute(text(statement))

        await check.step()

        assert trouble in str(check.trouble())

    async def test_that_fails_is_made_again_soon_and_says_when_it_was_made_last(
        self, engine: Database, check: LedgerCheck
    ) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE ledger_entries RENAME TO away"))
        before = checked_at()

        again_after_s = await check.step()

        assert again_after_s <= 60
        assert checked_at() == before
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO ledger_entries"))
        await check.step()
        assert checked_at() > before
