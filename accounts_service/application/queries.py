"""Reading accounts, and who may read them."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from accounts_service.application.ports import AccountHead, AccountView, AccountViews
from accounts_service.domain.account import Transaction, TransactionKind
from accounts_service.domain.errors import AccountNotFound
from accounts_service.domain.money import Money
from chassis.domain import BrokenField, InvalidFields
from chassis.web.paging import Page, page_of

LATEST_TRANSACTIONS: Final = 10
BATCH: Final = 1_000
"""How many transactions an export reads at once."""

_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks. A user may see their own account, an operator every account."""

    user_id: UUID
    operator: bool

    def may_see(self, account: AccountHead) -> bool:
        return self.operator or account.user_id == self.user_id


class ReadAccount:
    """Reads one account with its last transactions."""

    def __init__(self, views: AccountViews) -> None:
        self._views = views

    async def head(self, reader: Reader, account_id: UUID) -> AccountHead:
        """Return the account's head.

        :raises AccountNotFound: there is none, or the reader may not see it
        """
        return _visible(reader, await self._views.head(account_id))

    async def head_of_user(self, reader: Reader, user_id: UUID) -> AccountHead:
        """Return the head of the user's account.

        :raises AccountNotFound: there is none, or the reader may not see it
        """
        return _visible(reader, await self._views.head_of_user(user_id))

    async def whole(self, account: AccountHead) -> AccountView:
        """Return the account whose head was found; it may have changed since.

        :raises AccountNotFound: there is none
        """
        view = await self._views.by_id(account.id, latest=LATEST_TRANSACTIONS)
        if view is None:
            raise AccountNotFound
        return view


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Which transactions to find: all that match what is given.

    :ivar since: the first time
    :ivar until: the time after the last
    """

    kind: TransactionKind | None = None
    since: datetime | None = None
    until: datetime | None = None


class ReadTransactions:
    """Reads the transactions of an account whose head was found, newest first."""

    def __init__(self, views: AccountViews, now: Callable[[], datetime]) -> None:
        self._views = views
        self._now = now

    async def page(
        self, account: AccountHead, wanted: TransactionFilter, *, before: int | None, limit: int
    ) -> Page[Transaction, int]:
        """Return a page; the position of its last transaction is ``before`` of the next page."""
        positions = await self._positions(account, wanted)
        if before is not None:
            positions = range(positions.start, min(positions.stop, before))
        found = await self._views.transactions(
            account.id, positions, kind=wanted.kind, most=limit + 1
        )
        return page_of(found, limit, key=lambda transaction: transaction.position)

    async def batches(
        self, account: AccountHead, wanted: TransactionFilter
    ) -> AsyncIterator[Sequence[Transaction]]:
        """Yield all transactions that the head counts, each batch by a short read of its own.

        What is posted meanwhile is not among them.
        """
        positions = await self._positions(account, wanted)
        while batch := await self._views.transactions(
            account.id, positions, kind=wanted.kind, most=BATCH
        ):
            yield batch
            positions = range(positions.start, batch[-1].position)

    async def balance(self, account: AccountHead, at: datetime | None) -> tuple[datetime, Money]:
        """Return the balance after the last transaction at this time or before, and the time.

        :param at: None: now, with all that has been posted
        :raises InvalidFields: the time is still to come
        """
        now = self._now()
        if at is not None and at > now:
            raise InvalidFields(
                BrokenField("at", "in-the-future", "must be a time that has passed")
            )
        # Where another process's clock is ahead, the last transaction is of a time to come.
        minor_units = await self._views.balance_at(account.id, at or _END_OF_TIME)
        return at or now, Money(minor_units, account.currency)

    async def _positions(self, account: AccountHead, wanted: TransactionFilter) -> range:
        counted = range(1, account.last_position + 1)
        if wanted.since is None and wanted.until is None:
            return counted
        found = await self._views.positions(account.id, since=wanted.since, until=wanted.until)
        return range(found.start, min(found.stop, counted.stop))


def _visible(reader: Reader, account: AccountHead | None) -> AccountHead:
    # One answer for both cases, so that a reader does not learn which accounts exist.
    if account is None or not reader.may_see(account):
        raise AccountNotFound
    return account
