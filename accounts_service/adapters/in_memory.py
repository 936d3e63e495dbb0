"""The service's ports in memory, for tests; they keep the same promises as PostgreSQL."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from accounts_service.application.integration_events import translate
from accounts_service.application.ports import AccountView
from accounts_service.domain.account import Account, Transaction
from accounts_service.domain.errors import AccountExists
from chassis import testing
from chassis.persistence.outbox import Outbox, OutboxRow
from chassis.testing import InMemoryAggregates
from contracts.topics import ACCOUNTS_ACCOUNT


@dataclass
class Stored:
    """Everything that has been committed."""

    accounts: dict[UUID, Account] = field(default_factory=dict)
    transactions: dict[UUID, list[Transaction]] = field(default_factory=dict)
    outbox: list[OutboxRow] = field(default_factory=list)


class InMemoryAccounts(InMemoryAggregates[Account]):
    def __init__(self, stored: Stored, outbox: Outbox) -> None:
        super().__init__(
            stored.accounts,
            outbox,
            topic=ACCOUNTS_ACCOUNT,
            translate=translate,
            unique={AccountExists: lambda account: account.user_id},
        )
        self._transactions = stored.transactions

    async def flush(self) -> None:
        for account in self._saved.values():
            posted = self._transactions.setdefault(account.id, [])
            posted.extend(account.take_transactions())
        await super().flush()


class InMemoryAccountsWork:
    def __init__(self, stored: Stored, now: Callable[[], datetime]) -> None:
        self._stored = stored
        self._outbox = Outbox("/accounts", now)
        self.accounts = InMemoryAccounts(stored, self._outbox)

    async def flush(self) -> None:
        await self.accounts.flush()
        self._stored.outbox.extend(self._outbox.take_rows())


class InMemoryTransactor(testing.InMemoryTransactor[Stored, InMemoryAccountsWork]):
    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(Stored(), lambda stored: InMemoryAccountsWork(stored, now))


class InMemoryAccountViews:
    def __init__(self, transactor: InMemoryTransactor) -> None:
        self._transactor = transactor

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        account = self._transactor.stored.accounts.get(account_id)
        return None if account is None else self._view(account, latest)

    async def of_user(self, user_id: UUID, /, *, latest: int) -> AccountView | None:
        for account in self._transactor.stored.accounts.values():
            if account.user_id == user_id:
                return self._view(account, latest)
        return None

    def _view(self, account: Account, latest: int) -> AccountView:
        newest_first = self._transactor.stored.transactions[account.id][::-1]
        return AccountView(
            id=account.id,
            user_id=account.user_id,
            currency=account.currency,
            balance=account.balance,
            opened_at=account.opened_at,
            transactions=newest_first[:latest],
        )
