"""The service's ports kept in memory, for tests; they keep the promises of the real ones."""

from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from accounts_service.application.integration_events import Event, translate
from accounts_service.application.ports import AccountView
from accounts_service.domain.account import Account, Transaction
from accounts_service.domain.errors import AccountExists
from chassis.persistence.outbox import Outbox, OutboxRow
from contracts.topics import ACCOUNTS_ACCOUNT

T = TypeVar("T")


@dataclass
class Stored:
    """All that has been committed."""

    accounts: dict[UUID, Account] = field(default_factory=dict)
    transactions: dict[UUID, list[Transaction]] = field(default_factory=dict)
    outbox: list[OutboxRow] = field(default_factory=list)


class InMemoryAccounts:
    def __init__(self, stored: Stored, outbox: Outbox) -> None:
        self._stored = stored
        self._outbox = outbox
        self._saved: dict[UUID, Account] = {}

    def save(self, account: Account, /) -> None:
        self._saved[account.id] = account
        for event in account.take_events():
            assert isinstance(event, Event)  # noqa: S101 - what an account records
            told = translate(event)
            if told is not None:
                account.sequence += 1
                self._outbox.append(
                    told,
                    topic=ACCOUNTS_ACCOUNT,
                    subject=account.id,
                    sequence=account.sequence,
                    occurred_at=event.occurred_at,
                )

    async def flush(self) -> None:
        for account in self._saved.values():
            owners = {other.user_id: other.id for other in self._stored.accounts.values()}
            if owners.get(account.user_id, account.id) != account.id:
                raise AccountExists
            posted = self._stored.transactions.setdefault(account.id, [])
            posted.extend(account.take_transactions())
            account.version += 1
            self._stored.accounts[account.id] = account
        self._saved.clear()


class InMemoryAccountsWork:
    def __init__(self, stored: Stored, now: Callable[[], datetime]) -> None:
        self.stored = stored
        self._outbox = Outbox("/accounts", now)
        self.accounts = InMemoryAccounts(stored, self._outbox)

    async def flush(self) -> None:
        await self.accounts.flush()
        self.stored.outbox.extend(self._outbox.take_rows())


class InMemoryTransactor:
    """Runs a body on a copy, which is kept if all went well."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.stored = Stored()
        self._now = now

    async def __call__(self, body: Callable[[InMemoryAccountsWork], Awaitable[T]], /) -> T:
        work = InMemoryAccountsWork(deepcopy(self.stored), self._now)
        result = await body(work)
        await work.flush()
        self.stored = work.stored
        return result


class InMemoryAccountViews:
    def __init__(self, transactor: InMemoryTransactor) -> None:
        self._transactor = transactor

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        stored = self._transactor.stored
        account = stored.accounts.get(account_id)
        if account is None:
            return None
        return _view(account, stored.transactions, latest)

    async def of_user(self, user_id: UUID, /, *, latest: int) -> AccountView | None:
        stored = self._transactor.stored
        for account in stored.accounts.values():
            if account.user_id == user_id:
                return _view(account, stored.transactions, latest)
        return None


def _view(
    account: Account, transactions: Mapping[UUID, list[Transaction]], latest: int
) -> AccountView:
    return AccountView(
        id=account.id,
        user_id=account.user_id,
        currency=account.currency,
        balance=account.balance,
        opened_at=account.opened_at,
        transactions=transactions[account.id][: -latest - 1 : -1],
    )
