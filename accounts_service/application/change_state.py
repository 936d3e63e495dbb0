"""Freeze an account, end that, and close an account."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from accounts_service.application.parties import owned
from accounts_service.application.ports import AccountsWork
from accounts_service.domain.account import Account
from accounts_service.domain.errors import AccountNotFound


class ChangeStateHandler:
    """What an operator (freeze, unfreeze) and the owner (close) do to an account."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    async def freeze(
        self, work: AccountsWork, account_id: UUID, *, by: UUID, reason: str
    ) -> Account:
        """Let no money go out.

        :raises AccountsError: there is no such account, or a rule refuses it
        """
        account = await self._loaded(work, account_id)
        account.freeze(by=by, reason=reason, now=self._now())
        work.accounts.save(account)
        return account

    async def unfreeze(
        self, work: AccountsWork, account_id: UUID, *, by: UUID, reason: str
    ) -> Account:
        """Let money go out again.

        :raises AccountsError: there is no such account, or a rule refuses it
        """
        account = await self._loaded(work, account_id)
        account.unfreeze(by=by, reason=reason, now=self._now())
        work.accounts.save(account)
        return account

    async def close(self, work: AccountsWork, owner: UUID, account_id: UUID) -> Account:
        """Close an account for ever.

        :raises AccountsError: there is no such account of this owner, or a rule refuses it
        """
        account = owned(await work.accounts.load([account_id]), account_id, owner)
        account.close(self._now())
        work.accounts.save(account)
        return account

    async def _loaded(self, work: AccountsWork, account_id: UUID) -> Account:
        account = (await work.accounts.load([account_id])).get(account_id)
        if account is None:
            raise AccountNotFound
        return account
