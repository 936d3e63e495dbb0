"""Reading accounts, and who may read them."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from accounts_service.application.ports import AccountView, AccountViews
from accounts_service.domain.errors import AccountNotFound

LATEST_TRANSACTIONS: Final = 10


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks. A user may see their own account, an operator every account."""

    user_id: UUID
    operator: bool

    def may_see(self, account: AccountView) -> bool:
        return self.operator or account.user_id == self.user_id


class ReadAccount:
    """Reads one account with its last transactions."""

    def __init__(self, views: AccountViews) -> None:
        self._views = views

    async def by_id(self, reader: Reader, account_id: UUID) -> AccountView:
        """Return the account.

        :raises AccountNotFound: there is none, or the reader may not see it
        """
        return _visible(reader, await self._views.by_id(account_id, latest=LATEST_TRANSACTIONS))

    async def of_user(self, reader: Reader, user_id: UUID) -> AccountView:
        """Return the user's account.

        :raises AccountNotFound: there is none, or the reader may not see it
        """
        return _visible(reader, await self._views.of_user(user_id, latest=LATEST_TRANSACTIONS))


def _visible(reader: Reader, account: AccountView | None) -> AccountView:
    # One answer for both cases, so that a reader does not learn which accounts exist.
    if account is None or not reader.may_see(account):
        raise AccountNotFound
    return account
