"""Deposit to an account, or withdraw from it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from accounts_service.application.parties import owned
from accounts_service.application.ports import AccountsWork, Posted
from accounts_service.domain.account import Posting, TransactionKind
from accounts_service.domain.money import Money


@dataclass(frozen=True, slots=True)
class PostTransaction:
    """What the owner asks for; the amount is decimal text."""

    account_id: UUID
    kind: Literal[TransactionKind.DEPOSIT, TransactionKind.WITHDRAWAL]
    amount: str
    description: str


class PostTransactionHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: AccountsWork, owner: UUID, command: PostTransaction) -> Posted:
        """Return the transaction and the account after it.

        :raises DomainError: a rule refuses it
        """
        accounts = await work.accounts.load([command.account_id])
        account = owned(accounts, command.account_id, owner)
        amount = Money.parse(command.amount, account.currency)
        posting = Posting(self._new_id(), command.kind, command.description, self._now())
        if command.kind is TransactionKind.DEPOSIT:
            transaction = account.deposit(amount, posting)
        else:
            transaction = account.withdraw(amount, posting)
        work.accounts.save(account)
        return Posted.of(account, transaction)
