"""Open an account: every user has one from the start."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from accounts_service.application.ports import AccountsWork
from accounts_service.domain.account import Account
from accounts_service.domain.money import Currency


class OpenAccountHandler:
    def __init__(
        self, new_id: Callable[[], UUID], now: Callable[[], datetime], *, currency: Currency
    ) -> None:
        self._new_id = new_id
        self._now = now
        self._currency = currency

    async def __call__(self, work: AccountsWork, user_id: UUID) -> UUID:
        """Return the new account's id.

        :raises AccountExists: when the work is flushed
        """
        account = Account.open(
            self._new_id(),
            user_id=user_id,
            currency=self._currency,
            transaction_id=self._new_id(),
            now=self._now(),
        )
        work.accounts.save(account)
        return account.id
