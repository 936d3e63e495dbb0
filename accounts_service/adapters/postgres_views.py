"""Reads accounts, each with its latest transactions in one round trip."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, bindparam, select, true

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.tables import PERSONAL, accounts, ledger_entries
from accounts_service.application.ports import AccountView
from accounts_service.domain.account import State, Transaction, TransactionKind
from chassis.persistence.database import Database

_latest = (
    select(
        ledger_entries.c.transaction_id,
        ledger_entries.c.position,
        ledger_entries.c.kind,
        ledger_entries.c.delta,
        ledger_entries.c.balance_after,
        ledger_entries.c.description,
        ledger_entries.c.occurred_at,
    )
    .where(ledger_entries.c.account_id == accounts.c.id)
    .order_by(ledger_entries.c.position.desc())
    .limit(bindparam("latest"))
    .lateral("latest")
)
_VIEW: Final = (
    select(
        accounts.c.id,
        accounts.c.user_id,
        accounts.c.currency,
        accounts.c.state,
        accounts.c.balance,
        accounts.c.opened_at,
        *_latest.c,
    )
    # Every account has a transaction from its opening, so the join loses no account.
    .join_from(accounts, _latest, true())
    .where(accounts.c.kind == PERSONAL)
    .order_by(_latest.c.position.desc())
)
_BY_ID: Final = _VIEW.where(accounts.c.id == bindparam("asked_id"))
_OF_USER: Final = _VIEW.where(accounts.c.user_id == bindparam("asked_id"))


class PostgresAccountViews:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        return await self._one(_BY_ID, account_id, latest)

    async def of_user(self, user_id: UUID, /, *, latest: int) -> AccountView | None:
        return await self._one(_OF_USER, user_id, latest)

    async def _one(
        self, view: Select[*tuple[Any, ...]], asked_id: UUID, latest: int
    ) -> AccountView | None:
        # One statement is one snapshot; a transaction around it would be two more round trips.
        async with self._database.connect() as connection:
            found = await connection.execute(view, {"asked_id": asked_id, "latest": latest})
            rows = found.all()
        if not rows:
            return None
        account = rows[0]
        return AccountView(
            id=account.id,
            user_id=account.user_id,
            currency=CURRENCIES[account.currency],
            state=State(account.state),
            balance=account.balance,
            opened_at=account.opened_at,
            transactions=[
                Transaction(
                    row.transaction_id,
                    row.position,
                    TransactionKind(row.kind),
                    row.delta,
                    row.balance_after,
                    row.description,
                    row.occurred_at,
                )
                for row in rows
            ],
        )
