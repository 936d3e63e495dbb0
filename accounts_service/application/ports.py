"""What the use cases need: accounts to change, and accounts to read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self
from uuid import UUID

from accounts_service.domain.account import (
    Account,
    State,
    Transaction,
    TransactionKind,
    Transfer,
)
from accounts_service.domain.money import Currency
from chassis.persistence import transactor
from chassis.persistence.idempotency_keys import IdempotencyKeys
from chassis.timers.timer import Timers


class Accounts(Protocol):
    async def load(self, ids: Iterable[UUID], /) -> Mapping[UUID, Account]:
        """Return the users' accounts that exist, locked; the house's accounts are not among them.

        Holds whose time is over have expired in them. A rule over several loads them in one call:
        other transactions lock them in the same order.
        """

    def save(self, account: Account, /) -> object:
        """Keep the account, its new transactions and its new events for the flush.

        :raises AccountExists: at the flush, if the user has another account
        """


class Transfers(Protocol):
    """The transfers that were made, and those that were reversed."""

    async def find(self, transfer_id: UUID, /) -> Transfer | None: ...

    async def reversal_of(self, transfer_id: UUID, /) -> UUID | None:
        """Return the transaction that reversed it; asked while its accounts are locked."""

    def mark_reversed(self, transfer_id: UUID, /, *, by: UUID) -> None:
        """Keep for the flush which transaction reverses it."""


@dataclass(frozen=True, slots=True)
class HoldParties:
    """The accounts of a hold, which never change."""

    payer_id: UUID
    payee_id: UUID


class Holds(Protocol):
    async def find(self, hold_id: UUID, /) -> HoldParties | None:
        """Return whose hold it is, so that the accounts can be loaded; no lock is taken."""

    async def now(self) -> datetime:
        """Return the time by the clock that says when a hold is over."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A user, who may have no account yet."""

    user_id: UUID
    account_id: UUID | None


class Owners(Protocol):
    """The users by name: a projection of their events."""

    def add(self, user_id: UUID, username: str, /) -> None:
        """Keep a name for the flush; one that is known stays as it is."""

    async def find(self, username: str, /) -> Owner | None:
        """Return the user with this name; no lock is taken."""


class AccountsWork(transactor.Work, Protocol):
    """An open transaction with the service's repositories."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def transfers(self) -> Transfers: ...

    @property
    def holds(self) -> Holds: ...

    @property
    def timers(self) -> Timers: ...

    @property
    def owners(self) -> Owners: ...

    @property
    def idempotency_keys(self) -> IdempotencyKeys: ...


@dataclass(frozen=True, slots=True)
class Posted:
    """A new transaction, and the account after it; amounts are minor units.

    :ivar available: the balance without what is held
    """

    transaction: Transaction
    account_id: UUID
    currency: Currency
    balance: int
    available: int

    @classmethod
    def of(cls, account: Account, transaction: Transaction) -> Self:
        return cls(transaction, account.id, account.currency, account.balance, account.available)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountHead:
    """Whose account it is, and which state of it is the newest.

    :ivar last_position: of its latest transaction
    :ivar held: minor units, by the holds that have not expired by now
    """

    id: UUID
    user_id: UUID
    currency: Currency
    version: int
    last_position: int
    held: int

    @property
    def tag(self) -> str:
        """Return a name that no other state of any account has."""
        # A hold that expires makes no new version before its timer, and less is held at once.
        return f"{self.id.hex}.{self.version}.{self.held}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView(AccountHead):
    """What an owner sees of an account: with its latest transactions, newest first."""

    state: State
    balance: int
    opened_at: datetime
    transactions: Sequence[Transaction]


class AccountViews(Protocol):
    """Reads; what one call returns is of the same moment."""

    async def head(self, account_id: UUID, /) -> AccountHead | None:
        """Return an account's head; None: there is no such account."""

    async def head_of_user(self, user_id: UUID, /) -> AccountHead | None:
        """Return the head of the user's account; None: there is none."""

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        """Return the account with at most ``latest`` transactions."""

    async def positions(
        self, account_id: UUID, /, *, since: datetime | None, until: datetime | None
    ) -> range:
        """Return the positions of the transactions from ``since`` on and before ``until``.

        None is no bound. The range may end after the last transaction.
        """

    async def transactions(
        self, account_id: UUID, positions: range, /, *, kind: TransactionKind | None, most: int
    ) -> Sequence[Transaction]:
        """Return the newest ``most`` of the transactions at these positions, newest first.

        :param kind: of those to return; None: all
        """

    async def balance_at(self, account_id: UUID, at: datetime, /) -> int:
        """Return the minor units after the last transaction at this time or before; 0: none was."""
