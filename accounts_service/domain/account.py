"""An account: one user's money in one currency, and every change of it.

Money is a whole number of the currency's minor units.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from chassis.domain import Aggregate, DomainEvent

FIRST_DESCRIPTION: Final = "Initial"


@dataclass(frozen=True, slots=True)
class Transaction:
    """A line of an account's statement: one change of the balance, and the balance after it.

    ``id`` is the same in all accounts that take part; ``position`` counts this account's lines.
    """

    id: UUID
    position: int
    delta: int
    balance_after: int
    description: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOpened(DomainEvent):
    account_id: UUID
    user_id: UUID
    currency: str


class Account(Aggregate):
    """One user's account. Earlier transactions are not loaded, since no rule needs them."""

    def __init__(
        self,
        id_: UUID,
        *,
        user_id: UUID,
        currency: str,
        opened_at: datetime,
        balance: int,
        last_position: int,
        version: int = 0,
        sequence: int = 0,
    ) -> None:
        super().__init__(id_, version=version, sequence=sequence)
        self.user_id = user_id
        self.currency = currency
        self.opened_at = opened_at
        self.balance = balance
        self.last_position = last_position
        self._new_transactions: list[Transaction] = []

    @classmethod
    def open(
        cls, id_: UUID, *, user_id: UUID, currency: str, transaction_id: UUID, now: datetime
    ) -> Self:
        """Open an account. Its first transaction has the amount 0."""
        account = cls(
            id_, user_id=user_id, currency=currency, opened_at=now, balance=0, last_position=0
        )
        account._post(transaction_id, 0, FIRST_DESCRIPTION, now)
        account._record(
            AccountOpened(account_id=id_, user_id=user_id, currency=currency, occurred_at=now)
        )
        return account

    def _post(self, transaction_id: UUID, delta: int, description: str, now: datetime) -> None:
        self.balance += delta
        self.last_position += 1
        self._new_transactions.append(
            Transaction(transaction_id, self.last_position, delta, self.balance, description, now)
        )

    def take_transactions(self) -> Iterator[Transaction]:
        """Return the new transactions, oldest first; each is returned once."""
        posted, self._new_transactions = self._new_transactions, []
        yield from posted
