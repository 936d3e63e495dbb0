"""What the use cases need: accounts to change, and accounts to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from accounts_service.domain.account import Account, Transaction
from chassis.persistence import transactor


class Accounts(Protocol):
    def save(self, account: Account, /) -> object:
        """Keep the account, its new transactions and its new events for the flush.

        :raises AccountExists: at the flush, if the user has another account
        """


class AccountsWork(transactor.Work, Protocol):
    """An open transaction with the service's repositories."""

    @property
    def accounts(self) -> Accounts: ...


@dataclass(frozen=True, slots=True)
class AccountView:
    """What an owner sees of an account: with its latest transactions, newest first."""

    id: UUID
    user_id: UUID
    currency: str
    balance: int
    opened_at: datetime
    transactions: Sequence[Transaction]


class AccountViews(Protocol):
    """Reads; balance and transactions are of the same moment."""

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        """Return the account with at most ``latest`` transactions."""

    async def of_user(self, user_id: UUID, /, *, latest: int) -> AccountView | None:
        """Return the user's account with at most ``latest`` transactions."""
