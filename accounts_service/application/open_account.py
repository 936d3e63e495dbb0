"""Open an account: every user has one from the start."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from accounts_service.application.ports import AccountsWork
from accounts_service.domain.account import Account


@dataclass(frozen=True, slots=True)
class OpenAccount:
    user_id: UUID


class OpenAccountHandler:
    def __init__(
        self, new_id: Callable[[], UUID], now: Callable[[], datetime], *, currency: str
    ) -> None:
        self._new_id = new_id
        self._now = now
        self._currency = currency

    async def __call__(self, work: AccountsWork, command: OpenAccount) -> UUID:
        """Return the new account's id.

        :raises AccountExists: when the work is flushed
        """
        account = Account.open(
            self._new_id(),
            user_id=command.user_id,
            currency=self._currency,
            transaction_id=self._new_id(),
            now=self._now(),
        )
        work.accounts.save(account)
        return account.id
