"""What the use cases need from outside: accounts to change, and accounts to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from accounts_service.domain.account import Account, Transaction
from chassis.persistence import transactor


class Accounts(Protocol):
    def save(self, account: Account, /) -> object:
        """Keep the account, what was posted to it and what happened to it for the flush.

        :raises AccountExists: at the flush, if the user has another
        """


class AccountsWork(transactor.Work, Protocol):
    """An open transaction with the service's repositories."""

    @property
    def accounts(self) -> Accounts: ...


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as its owner sees it, with its latest transactions, newest first."""

    id: UUID
    user_id: UUID
    currency: str
    balance: int
    opened_at: datetime
    transactions: Sequence[Transaction]


class AccountViews(Protocol):
    """What can be read; balance and transactions are those of one moment."""

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        """Return the account with at most ``latest`` transactions."""

    async def of_user(self, user_id: UUID, /, *, latest: int) -> AccountView | None:
        """Return the user's account with at most ``latest`` transactions."""
