"""The constraints of the database on accounts and ledger entries."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import IntegrityConstraintViolationError as IntegrityError
from sqlalchemy import func, insert, select

from accounts_service.adapters.tables import accounts, ledger_entries
from chassis.persistence.database import Connection, Database
from tests.unit.accounts_service.making import NOW

PERSONAL = {"kind": "personal", "balance": 0, "last_position": 0}
HOUSE = {"kind": "cash", "user_id": None, "balance": None, "last_position": None}


async def add_account(connection: Connection, **columns: Any) -> UUID:
    id_ = uuid4()
    row = {"id": id_, "user_id": uuid4(), "currency": "USD", "opened_at": NOW}
    await connection.execute(insert(accounts).values(row | {"version": 1, "sequence": 0} | columns))
    return id_


async def add_entry(connection: Connection, account_id: UUID, **columns: Any) -> None:
    row = {
        "transaction_id": uuid4(),
        "account_id": account_id,
        "position": 1,
        "delta": 0,
        "balance_after": 0,
        "description": "Initial",
        "occurred_at": NOW,
    }
    await connection.execute(insert(ledger_entries).values(row | columns))


class TestAccounts:
    @pytest.mark.parametrize(
        ("columns", "constraint"),
        [
            (PERSONAL | {"balance": -1}, "accounts_balance_check"),
            (PERSONAL | {"currency": "usd"}, "accounts_currency_check"),
            (PERSONAL | {"user_id": None}, "accounts_kind_check"),
            (PERSONAL | {"balance": None}, "accounts_kind_check"),
            (HOUSE | {"user_id": uuid4()}, "accounts_kind_check"),
            (HOUSE | {"balance": 0}, "accounts_kind_check"),
        ],
    )
    async def test_an_invalid_account_is_refused(
        self, engine: Database, columns: dict[str, Any], constraint: str
    ) -> None:
        async with engine.connect() as connection:
            with pytest.raises(IntegrityError, match=constraint):
                await add_account(connection, **columns)

    async def test_the_house_has_one_account_for_each_kind_and_currency(
        self, engine: Database
    ) -> None:
        async with engine.connect() as connection:
            await add_account(connection, **HOUSE)
            await add_account(connection, **HOUSE | {"currency": "EUR"})
            await add_account(connection, **HOUSE | {"kind": "fees"})
            with pytest.raises(IntegrityError, match="accounts_house_key"):
                await add_account(connection, **HOUSE)


class TestEntries:
    @pytest.mark.parametrize(
        ("columns", "constraint"),
        [
            ({"balance_after": -1}, "ledger_entries_balance_after_check"),
            ({"balance_after": None}, "ledger_entries_position_check"),
            ({"position": None}, "ledger_entries_position_check"),
            ({"description": "ab"}, "ledger_entries_description_check"),
            ({"description": "a" * 256}, "ledger_entries_description_check"),
        ],
    )
    async def test_an_invalid_entry_is_refused(
        self, engine: Database, columns: dict[str, Any], constraint: str
    ) -> None:
        async with engine.connect() as connection:
            account_id = await add_account(connection, **PERSONAL)
            with pytest.raises(IntegrityError, match=constraint):
                await add_entry(connection, account_id, **columns)

    async def test_an_entry_needs_an_account(self, engine: Database) -> None:
        async with engine.connect() as connection:
            with pytest.raises(IntegrityError, match="ledger_entries_account_id_fkey"):
                await add_entry(connection, uuid4())

    async def test_a_position_is_unique_in_an_account(self, engine: Database) -> None:
        async with engine.connect() as connection:
            account_id = await add_account(connection, **PERSONAL)
            await add_entry(connection, account_id)
            with pytest.raises(IntegrityError, match="ledger_entries_account_id_position_key"):
                await add_entry(connection, account_id)

    async def test_a_transaction_has_one_entry_for_each_account(self, engine: Database) -> None:
        async with engine.connect() as connection:
            account_id = await add_account(connection, **PERSONAL)
            transaction_id = uuid4()
            await add_entry(connection, account_id, transaction_id=transaction_id)
            with pytest.raises(IntegrityError, match="ledger_entries_pkey"):
                await add_entry(connection, account_id, transaction_id=transaction_id, position=2)

    async def test_an_entry_of_the_house_updates_no_balance(self, engine: Database) -> None:
        async with engine.connect() as connection:
            house_id = await add_account(connection, **HOUSE)
            for amount in (700, 300):
                account_id = await add_account(connection, **PERSONAL | {"balance": amount})
                transaction_id = uuid4()
                await add_entry(
                    connection,
                    account_id,
                    transaction_id=transaction_id,
                    delta=amount,
                    balance_after=amount,
                )
                await add_entry(
                    connection,
                    house_id,
                    transaction_id=transaction_id,
                    delta=-amount,
                    position=None,
                    balance_after=None,
                )

            of_the_house = ledger_entries.c.account_id == house_id
            sum_of_entries = select(func.sum(ledger_entries.c.delta))
            assert await connection.scalar(sum_of_entries.where(of_the_house)) == -1000
            assert await connection.scalar(sum_of_entries) == 0
