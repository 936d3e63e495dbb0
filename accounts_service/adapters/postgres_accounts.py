"""Accounts and their ledger in PostgreSQL, and the unit of work that saves them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from accounts_service.adapters.tables import PERSONAL, accounts, ledger_entries
from accounts_service.application import integration_events
from accounts_service.domain.account import Account, Transaction
from accounts_service.domain.errors import AccountExists
from chassis.domain import DomainError
from chassis.persistence.aggregate_table import AggregateTable
from chassis.persistence.bulk import insert_rows
from chassis.persistence.database import Connection, Row
from chassis.persistence.outbox import Outbox
from contracts.topics import ACCOUNTS_ACCOUNT

SOURCE = "/accounts"


class PostgresAccounts(AggregateTable[Account]):
    """Personal accounts. Their new transactions are written after them, as ledger entries."""

    table = accounts
    topic = ACCOUNTS_ACCOUNT
    translate = staticmethod(integration_events.translate)
    conflicts: ClassVar[Mapping[str, type[DomainError]]] = {"accounts_user_id_key": AccountExists}

    def to_row(self, aggregate: Account) -> dict[str, Any]:
        return {
            "kind": PERSONAL,
            "user_id": aggregate.user_id,
            "currency": aggregate.currency,
            "balance": aggregate.balance,
            "last_position": aggregate.last_position,
            "opened_at": aggregate.opened_at,
        }

    def from_row(self, row: Row) -> Account:
        return Account(
            row.id,
            user_id=row.user_id,
            currency=row.currency,
            opened_at=row.opened_at,
            balance=row.balance,
            last_position=row.last_position,
            version=row.version,
            sequence=row.sequence,
        )

    async def flush(self) -> None:
        entries = [
            _entry(account.id, transaction)
            for account in self._saved.values()
            for transaction in account.take_transactions()
        ]
        await super().flush()
        await insert_rows(self._connection, ledger_entries, entries)


def _entry(account_id: UUID, transaction: Transaction) -> dict[str, Any]:
    return {
        "transaction_id": transaction.id,
        "account_id": account_id,
        "position": transaction.position,
        "delta": transaction.delta,
        "balance_after": transaction.balance_after,
        "description": transaction.description,
        "occurred_at": transaction.occurred_at,
    }


class PostgresAccountsWork:
    """One transaction on the service's database."""

    def __init__(self, connection: Connection, now: Callable[[], datetime]) -> None:
        self._connection = connection
        self._outbox = Outbox(SOURCE, now)
        self.accounts = PostgresAccounts(connection, self._outbox)

    async def flush(self) -> None:
        await self.accounts.flush()
        await self._outbox.flush(self._connection)
