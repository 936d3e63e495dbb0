"""The service's ports in memory, for tests; they keep the same promises as PostgreSQL."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from accounts_service.adapters.currencies import HOUSE_ACCOUNTS
from accounts_service.application.integration_events import translate
from accounts_service.application.ports import AccountHead, AccountView, HoldParties, Owner
from accounts_service.domain.account import Account, Transaction, TransactionKind, Transfer
from accounts_service.domain.errors import AccountExists
from accounts_service.domain.hold import Hold
from chassis import testing
from chassis.persistence.outbox import Outbox, OutboxRow
from chassis.testing import InMemoryAggregates, InMemoryIdempotencyKeys, InMemoryTimers, StoredTimer
from contracts.topics import ACCOUNTS_ACCOUNT


@dataclass
class Stored:
    """Everything that has been committed."""

    accounts: dict[UUID, Account] = field(default_factory=dict)
    transactions: dict[UUID, list[Transaction]] = field(default_factory=dict)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    timers: dict[UUID, StoredTimer] = field(default_factory=dict)
    reversals: dict[UUID, UUID] = field(default_factory=dict)
    owners: dict[str, UUID] = field(default_factory=dict)
    idempotency_keys: InMemoryIdempotencyKeys = field(default_factory=InMemoryIdempotencyKeys)
    outbox: list[OutboxRow] = field(default_factory=list)


class InMemoryAccounts(InMemoryAggregates[Account]):
    def __init__(self, stored: Stored, outbox: Outbox, now: Callable[[], datetime]) -> None:
        super().__init__(
            stored.accounts,
            outbox,
            topic=ACCOUNTS_ACCOUNT,
            translate=translate,
            unique={AccountExists: lambda account: account.user_id},
        )
        self._transactions = stored.transactions
        self._holds = stored.holds
        self._now = now

    async def load(self, ids: Iterable[UUID], /) -> Mapping[UUID, Account]:
        accounts = await super().load(id_ for id_ in ids if id_ not in HOUSE_ACCOUNTS)
        for account in accounts.values():
            account.with_holds((), self._now())
        return accounts

    async def flush(self) -> None:
        for account in self._saved.values():
            posted = self._transactions.setdefault(account.id, [])
            posted.extend(account.take_transactions())
            self._holds.update({hold.id: hold for hold in account.take_changed_holds()})
        await super().flush()


class InMemoryTransfers:
    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    async def find(self, transfer_id: UUID, /) -> Transfer | None:
        lines = sorted(
            (transaction.delta, account_id)
            for account_id, posted in self._stored.transactions.items()
            for transaction in posted
            if transaction.id == transfer_id and transaction.kind is TransactionKind.TRANSFER
        )
        if not lines:
            return None
        (_, payer_id), (amount, payee_id) = lines
        return Transfer(transfer_id, payer_id, payee_id, amount)

    async def reversal_of(self, transfer_id: UUID, /) -> UUID | None:
        return self._stored.reversals.get(transfer_id)

    def mark_reversed(self, transfer_id: UUID, /, *, by: UUID) -> None:
        self._stored.reversals[transfer_id] = by


class InMemoryHolds:
    def __init__(self, stored: Stored, now: Callable[[], datetime]) -> None:
        self._stored = stored
        self._now = now

    async def find(self, hold_id: UUID, /) -> HoldParties | None:
        hold = self._stored.holds.get(hold_id)
        return None if hold is None else HoldParties(hold.account_id, hold.payee_id)

    async def now(self) -> datetime:
        return self._now()


class InMemoryOwners:
    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def add(self, user_id: UUID, username: str, /) -> None:
        self._stored.owners.setdefault(username, user_id)

    async def find(self, username: str, /) -> Owner | None:
        user_id = self._stored.owners.get(username)
        if user_id is None:
            return None
        account_ids = (a.id for a in self._stored.accounts.values() if a.user_id == user_id)
        return Owner(user_id, next(account_ids, None))


class InMemoryAccountsWork:
    def __init__(self, stored: Stored, now: Callable[[], datetime]) -> None:
        self._stored = stored
        self._outbox = Outbox("/accounts", now)
        self.accounts = InMemoryAccounts(stored, self._outbox, now)
        self.holds = InMemoryHolds(stored, now)
        self.timers = InMemoryTimers(stored.timers)
        self.transfers = InMemoryTransfers(stored)
        self.owners = InMemoryOwners(stored)
        self.idempotency_keys = stored.idempotency_keys

    async def flush(self) -> None:
        await self.accounts.flush()
        self._stored.outbox.extend(self._outbox.take_rows())


class InMemoryTransactor(testing.InMemoryTransactor[Stored, InMemoryAccountsWork]):
    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(Stored(), lambda stored: InMemoryAccountsWork(stored, now))
        self.now = now


class InMemoryAccountViews:
    def __init__(self, transactor: InMemoryTransactor) -> None:
        self._transactor = transactor

    async def head(self, account_id: UUID, /) -> AccountHead | None:
        account = self._transactor.stored.accounts.get(account_id)
        return None if account is None else AccountHead(**self._head_of(account))

    async def head_of_user(self, user_id: UUID, /) -> AccountHead | None:
        for account in self._transactor.stored.accounts.values():
            if account.user_id == user_id:
                return AccountHead(**self._head_of(account))
        return None

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        account = self._transactor.stored.accounts.get(account_id)
        if account is None:
            return None
        return AccountView(
            **self._head_of(account),
            state=account.state,
            balance=account.balance,
            opened_at=account.opened_at,
            transactions=self._posted(account_id)[::-1][:latest],
        )

    async def positions(
        self, account_id: UUID, /, *, since: datetime | None, until: datetime | None
    ) -> range:
        times = [each.occurred_at for each in self._posted(account_id)]
        start = 0 if since is None else bisect_left(times, since)
        stop = len(times) if until is None else bisect_left(times, until)
        return range(start + 1, stop + 1)

    async def transactions(
        self, account_id: UUID, positions: range, /, *, kind: TransactionKind | None, most: int
    ) -> Sequence[Transaction]:
        found = [
            each
            for each in reversed(self._posted(account_id))
            if each.position in positions and kind in {None, each.kind}
        ]
        return found[:most]

    async def balance_at(self, account_id: UUID, at: datetime, /) -> int:
        posted = [each for each in self._posted(account_id) if each.occurred_at <= at]
        return posted[-1].balance_after if posted else 0

    def _posted(self, account_id: UUID) -> Sequence[Transaction]:
        return self._transactor.stored.transactions[account_id]

    def _head_of(self, account: Account) -> dict[str, Any]:
        now = self._transactor.now()
        return {
            "id": account.id,
            "user_id": account.user_id,
            "currency": account.currency,
            "version": account.version,
            "last_position": account.last_position,
            "held": sum(
                hold.minor_units for hold in account.holds.values() if hold.expires_at > now
            ),
        }
