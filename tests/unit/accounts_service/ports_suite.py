"""The promises of the service's ports; each suite runs on the fake and on PostgreSQL."""

import pytest

from accounts_service.application.ports import AccountsWork, AccountViews
from accounts_service.domain.account import Account, Transaction, TransactionKind
from accounts_service.domain.errors import AccountExists
from chassis.correlation import new_id
from chassis.persistence.transactor import Transact

from .making import NOW, USD, an_account, post


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

        assert await views.of_user(first.user_id, latest=10) is None


class ViewsSuite:
    async def test_an_unknown_id_is_not_found(self, views: AccountViews) -> None:
        assert await views.by_id(new_id(), latest=10) is None
        assert await views.of_user(new_id(), latest=10) is None

    async def test_an_account_is_found_by_its_user(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        wanted = an_account()
        await store(transact, an_account(), wanted, an_account())

        view = await views.of_user(wanted.user_id, latest=10)

        assert view is not None
        assert view == await views.by_id(wanted.id, latest=10)

    async def test_the_latest_transactions_are_listed_newest_first(
        self, transact: Transact[AccountsWork], views: AccountViews
    ) -> None:
        account, other = an_account(), an_account()
        post(account, *range(1, 12))
        post(other, *range(1, 12))
        transactions = list(account.take_transactions())
        account._new_transactions = list(transactions)
        await store(transact, account, other)

        view = await views.of_user(account.user_id, latest=10)

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
