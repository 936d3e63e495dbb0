"""The constraints of the database on accounts and ledger entries."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import IntegrityConstraintViolationError as IntegrityError
from sqlalchemy import func, insert, select, text

from accounts_service.adapters.currencies import CASH_ACCOUNTS
from accounts_service.adapters.tables import accounts, ledger_entries
from chassis.persistence.bulk import insert_rows
from chassis.persistence.database import Connection, Database
from tests.unit.accounts_service.making import NOW

PERSONAL = {"kind": "personal", "balance": 0, "last_position": 0}
HOUSE = {"kind": "cash", "user_id": None, "balance": None, "last_position": None}


async def add_account(connection: Connection, **columns: Any) -> UUID:
    id_ = uuid4()
    row = {"id": id_, "user_id": uuid4(), "currency": "USD", "opened_at": NOW} | {
        "moved_at": NOW,
        "state": "open",
    }
    await connection.execute(insert(accounts).values(row | {"version": 1, "sequence": 0} | columns))
    return id_


async def add_entry(connection: Connection, account_id: UUID, **columns: Any) -> None:
    row = {
        "transaction_id": uuid4(),
        "account_id": account_id,
        "position": 1,
        "kind": "opening",
        "delta": 0,
        "balance_after": 0,
        "description": "Initial",
        "occurred_at": NOW,
    }
    await connection.execute(insert(ledger_entries).values(row | columns))


async def post(
    connection: Connection, deltas: dict[UUID, int], transaction_id: UUID | None = None
) -> None:
    """Add the entries of one transaction in one statement."""
    transaction_id = transaction_id or uuid4()
    entries = [
        {
            "transaction_id": transaction_id,
            "account_id": account_id,
            "position": position,
            "kind": "transfer",
            "delta": delta,
            "balance_after": max(0, delta),
            "description": "A transfer",
            "occurred_at": NOW,
        }
        for position, (account_id, delta) in enumerate(deltas.items(), start=100)
    ]
    await insert_rows(connection, ledger_entries, entries)


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
            (PERSONAL | {"state": "asleep"}, "accounts_state_check"),
            (PERSONAL | {"state": "closed", "balance": 1}, "accounts_closed_check"),
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
            await add_account(connection, **HOUSE | {"kind": "fees"})
            await add_account(connection, **HOUSE | {"kind": "fees", "currency": "EUR"})
            # A migration has added those of cash.
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

    async def test_an_amount_of_zero_is_an_opening(self, engine: Database) -> None:
        async with engine.connect() as connection:
            account_id = await add_account(connection, **PERSONAL)
            for columns in ({"kind": "deposit"}, {"delta": 5, "balance_after": 5}):
                with pytest.raises(IntegrityError, match="ledger_entries_delta_check"):
                    await add_entry(connection, account_id, **columns)


class TestTransactions:
    """What the triggers hold, whoever writes."""

    async def test_the_entries_of_a_transaction_add_up_to_zero(self, engine: Database) -> None:
        async with engine.connect() as connection:
            one, other = [await add_account(connection, **PERSONAL) for _ in range(2)]
            for amounts in ([700], [700, -699], [-1]):
                with pytest.raises(IntegrityError, match="add up to zero"):
                    await post(connection, dict(zip((one, other), amounts, strict=False)))
            await post(connection, {one: 700, other: -700})

            total = await connection.scalar(select(func.sum(ledger_entries.c.delta)))
            assert total == 0

    async def test_a_transaction_is_in_one_currency(self, engine: Database) -> None:
        async with engine.connect() as connection:
            dollars = await add_account(connection, **PERSONAL)
            euros = await add_account(connection, **PERSONAL | {"currency": "EUR"})

            with pytest.raises(IntegrityError, match="in one currency"):
                await post(connection, {dollars: 700, euros: -700})

    async def test_nothing_is_added_to_a_transaction_that_unbalances_it(
        self, engine: Database
    ) -> None:
        async with engine.connect() as connection:
            one, other, third, fourth = [
                await add_account(connection, **PERSONAL | {"currency": currency})
                for currency in ("USD", "USD", "EUR", "EUR")
            ]
            transaction_id = uuid4()
            await post(connection, {one: 700, other: -700}, transaction_id)

            with pytest.raises(IntegrityError, match="in one currency"):
                await post(connection, {third: 5, fourth: -5}, transaction_id)

    async def test_a_transaction_is_whole_from_the_start(self, engine: Database) -> None:
        async with engine.connect() as connection:
            one, other, third, fourth = [
                await add_account(connection, **PERSONAL) for _ in range(4)
            ]
            transaction_id = uuid4()
            await post(connection, {one: 700, other: -700}, transaction_id)

            with pytest.raises(IntegrityError, match="at once"):
                await post(connection, {third: 5, fourth: -5}, transaction_id)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE ledger_entries SET description = 'Other'",
            "DELETE FROM ledger_entries",
            "TRUNCATE ledger_entries",
        ],
    )
    async def test_an_entry_is_never_changed_or_removed(
        self, engine: Database, statement: str
    ) -> None:
        async with engine.connect() as connection:
            with pytest.raises(IntegrityError, match="entries are only added"):
                await connection.execute(text(statement))

    async def test_every_currency_has_its_account_of_cash(self, engine: Database) -> None:
        async with engine.connect() as connection:
            found = await connection.execute(
                select(accounts.c.currency, accounts.c.id).where(accounts.c.kind == "cash")
            )

        assert {row.currency: row.id for row in found} == CASH_ACCOUNTS
