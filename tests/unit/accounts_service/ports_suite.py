"""The promises of the service's ports; each suite runs on the fake and on PostgreSQL."""

from datetime import timedelta

import pytest

from accounts_service.adapters.currencies import CASH_ACCOUNTS
from accounts_service.application.ports import AccountsWork, AccountViews
from accounts_service.domain.account import Account, Transaction, TransactionKind
from accounts_service.domain.errors import AccountExists
from chassis.correlation import new_id
from chassis.persistence.transactor import Transact

from .making import NOW, USD, an_account, place_hold, post, posting, usd

SECOND = timedelta(seconds=1)
LATER = NOW + timedelta(days=10_000)


async def store(transact: Transact[AccountsWork], *accounts: Account) -> None:
    async def save(work: AccountsWork) -> None:
        for account in accounts:
            work.accounts.save(account)

    await transact(save)


class AccountsSuite:
    async def test_an_account_is_stored(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account = an_account()

        await store(transact, account)

        view = await views.by_id(account.id, latest=10)
        assert view is not None
        assert (view.id, view.user_id, view.currency) == (account.id, account.user_id, USD)
        assert (view.balance, view.opened_at) == (0, NOW)

    async def test_every_transaction_is_stored(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account = an_account()
        post(account, 700, -50)

        await store(transact, account)

        view = await views.by_id(account.id, latest=10)
        assert view is not None
        assert [(t.delta, t.balance_after) for t in view.transactions] == [
            (-50, 650),
            (700, 700),
            (0, 0),
        ]
        assert view.balance == 650

    async def test_later_transactions_are_added(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account = an_account()
        await store(transact, account)

        post(account, 700)
        await store(transact, account)

        view = await views.by_id(account.id, latest=10)
        assert view is not None
        assert [t.position for t in view.transactions] == [2, 1]
        assert view.balance == 700

    async def test_a_user_has_only_one_account(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        first = an_account()
        await store(transact, first)
        second = an_account(first.user_id)

        with pytest.raises(AccountExists):
            await store(transact, second)

        assert await views.by_id(second.id, latest=10) is None

    async def test_a_user_has_only_one_account_of_two_opened_together(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        first = an_account()
        second = an_account(first.user_id)

        with pytest.raises(AccountExists):
            await store(transact, first, second)

        assert await views.head_of_user(first.user_id) is None


class ViewsSuite:
    async def test_an_unknown_id_is_not_found(self, views: AccountViews) -> None:
        assert await views.by_id(new_id(), latest=10) is None
        assert await views.head(new_id()) is None
        assert await views.head_of_user(new_id()) is None

    async def test_the_houses_accounts_are_not_found(self, views: AccountViews) -> None:
        house = CASH_ACCOUNTS["USD"]

        assert await views.head(house) is None
        assert await views.by_id(house, latest=10) is None

    async def test_an_account_is_found_by_its_user(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        wanted = an_account()
        await store(transact, an_account(), wanted, an_account())

        head = await views.head_of_user(wanted.user_id)

        assert head == await views.head(wanted.id)
        assert head is not None
        assert (head.id, head.user_id, head.currency) == (wanted.id, wanted.user_id, USD)
        assert (head.version, head.last_position) == (1, 1)

    async def test_the_latest_transactions_are_listed_newest_first(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account, other = an_account(), an_account()
        post(account, *range(1, 12))
        post(other, *range(1, 12))
        transactions = list(account.take_transactions())
        account._new_transactions = list(transactions)
        await store(transact, account, other)

        view = await views.by_id(account.id, latest=10)

        assert view is not None
        assert list(view.transactions) == transactions[:1:-1]
        assert len(view.transactions) == 10

    async def test_a_new_account_has_one_transaction(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account = an_account()
        [initial] = account._new_transactions
        await store(transact, account)

        view = await views.by_id(account.id, latest=10)

        assert view is not None
        assert list(view.transactions) == [
            Transaction(initial.id, 1, TransactionKind.OPENING, 0, 0, "Initial", NOW)
        ]

    async def test_every_change_of_an_account_gives_its_view_and_head_another_tag(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account = an_account()
        await store(transact, account)
        before = await views.head(account.id)

        account.freeze(by=new_id(), reason="A test", now=NOW)
        await store(transact, account)

        after, view = await views.head(account.id), await views.by_id(account.id, latest=10)
        assert before is not None
        assert after is not None
        assert view is not None
        assert before.tag != after.tag == view.tag

    async def test_two_accounts_have_no_tag_in_common(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        accounts = [an_account(), an_account()]
        await store(transact, *accounts)

        one, other = [await views.head(account.id) for account in accounts]

        assert one is not None
        assert other is not None
        assert one.version == other.version
        assert one.tag != other.tag

    async def test_the_positions_in_a_time_begin_with_since_and_end_before_until(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account = an_account()
        for seconds in (1, 1, 2, 2, 5):
            account.deposit(usd(100), posting(now=NOW + seconds * SECOND))
        await store(transact, account, an_account())

        async def found(since: int | None, until: int | None) -> list[int]:
            positions = await views.positions(
                account.id,
                since=None if since is None else NOW + since * SECOND,
                until=None if until is None else NOW + until * SECOND,
            )
            return [each for each in range(1, 7) if each in positions]

        assert await found(None, None) == [1, 2, 3, 4, 5, 6]
        assert await found(1, 2) == [2, 3]
        assert await found(1, 3) == [2, 3, 4, 5]
        assert await found(3, None) == [6]
        assert await found(None, 1) == [1]
        assert await found(-5, 0) == []
        assert await found(6, None) == []
        assert await found(4, 2) == []

    async def test_transactions_are_found_by_position_and_kind_newest_first(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account, other = an_account(), an_account()
        post(account, 700, -50, 20, -1, 3)
        post(other, 1)
        await store(transact, account, other)

        async def found(
            start: int, stop: int, kind: TransactionKind | None, most: int
        ) -> list[int]:
            lines = await views.transactions(account.id, range(start, stop), kind=kind, most=most)
            return [each.position for each in lines]

        assert await found(1, 2**63 - 1, None, 10) == [6, 5, 4, 3, 2, 1]
        assert await found(2, 5, None, 10) == [4, 3, 2]
        assert await found(2, 5, None, 2) == [4, 3]
        assert await found(1, 7, TransactionKind.WITHDRAWAL, 10) == [5, 3]
        assert await found(1, 5, TransactionKind.DEPOSIT, 1) == [4]
        assert await found(1, 7, TransactionKind.REVERSAL, 10) == []

    async def test_the_balance_at_a_time_is_that_of_the_last_transaction_until_then(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account = an_account()
        for seconds, amount in ((1, 100), (1, 20), (3, 3)):
            account.deposit(usd(amount), posting(now=NOW + seconds * SECOND))
        await store(transact, account)

        async def balance(seconds: int) -> int:
            return await views.balance_at(account.id, NOW + seconds * SECOND)

        assert [await balance(each) for each in (-1, 0, 1, 2, 3, 9)] == [0, 0, 120, 120, 123, 123]

    async def test_what_is_held_is_without_holds_that_have_expired_by_now(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        payer, payee = an_account(), an_account()
        post(payer, 1_000)
        for minor_units, expires_at in ((5, NOW - SECOND), (70, LATER), (600, LATER)):
            place_hold(payer, payee, minor_units, expires_at)
        await store(transact, payer, payee)

        head, view = await views.head(payer.id), await views.by_id(payer.id, latest=1)

        assert head is not None
        assert view is not None
        assert (head.held, view.held, view.balance) == (670, 670, 1_000)
        assert head.tag == view.tag
