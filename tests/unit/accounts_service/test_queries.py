from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID

import pytest

from accounts_service.adapters.in_memory import InMemoryAccountViews, InMemoryTransactor
from accounts_service.application.ports import AccountHead
from accounts_service.application.queries import (
    BATCH,
    ReadAccount,
    Reader,
    ReadTransactions,
    TransactionFilter,
)
from accounts_service.domain.account import Account, TransactionKind
from accounts_service.domain.errors import AccountNotFound
from chassis.correlation import new_id
from chassis.domain import InvalidFields

from .making import NOW, an_account, now, place_hold, post, posting, usd
from .ports_suite import store

SECOND: Final = timedelta(seconds=1)


@pytest.fixture
async def transactor() -> InMemoryTransactor:
    return InMemoryTransactor(now)


@pytest.fixture
async def account(transactor: InMemoryTransactor) -> Account:
    account = an_account()
    post(account, *range(1, 12))
    await store(transactor, account)
    return account


@pytest.fixture
def read_account(transactor: InMemoryTransactor) -> ReadAccount:
    return ReadAccount(InMemoryAccountViews(transactor))


@pytest.fixture
def read(transactor: InMemoryTransactor) -> ReadTransactions:
    return ReadTransactions(InMemoryAccountViews(transactor), now)


def user(id_: UUID) -> Reader:
    return Reader(user_id=id_, operator=False)


class TestReadAccount:
    async def test_the_owner_sees_it(self, read_account: ReadAccount, account: Account) -> None:
        owner = user(account.user_id)

        assert (await read_account.head(owner, account.id)).id == account.id
        assert (await read_account.head_of_user(owner, account.user_id)).id == account.id

    async def test_an_operator_sees_it(self, read_account: ReadAccount, account: Account) -> None:
        operator = Reader(user_id=new_id(), operator=True)

        assert (await read_account.head(operator, account.id)).id == account.id
        assert (await read_account.head_of_user(operator, account.user_id)).id == account.id

    async def test_others_do_not_find_it(self, read_account: ReadAccount, account: Account) -> None:
        other_user = user(new_id())

        with pytest.raises(AccountNotFound):
            await read_account.head(other_user, account.id)
        with pytest.raises(AccountNotFound):
            await read_account.head_of_user(other_user, account.user_id)

    async def test_a_missing_account_is_not_found(
        self, read_account: ReadAccount, account: Account
    ) -> None:
        operator = Reader(user_id=new_id(), operator=True)

        with pytest.raises(AccountNotFound):
            await read_account.head(operator, new_id())
        with pytest.raises(AccountNotFound):
            await read_account.head_of_user(operator, new_id())

    async def test_its_tag_changes_with_each_hold_that_expires(self) -> None:
        clock = [NOW]
        transactor = InMemoryTransactor(lambda: clock[-1])
        payer, payee = an_account(), an_account()
        post(payer, 100)
        place_hold(payer, payee, 10, NOW + SECOND)
        place_hold(payer, payee, 20, NOW + 2 * SECOND)
        await store(transactor, payer, payee)
        read_account = ReadAccount(InMemoryAccountViews(transactor))

        async def head_at(now: datetime) -> AccountHead:
            clock.append(now)
            return await read_account.head(user(payer.user_id), payer.id)

        heads = [await head_at(NOW + seconds * SECOND) for seconds in range(3)]

        assert [head.held for head in heads] == [30, 20, 0]
        assert len({head.tag for head in heads}) == 3

    async def test_it_shows_ten_transactions(
        self, read_account: ReadAccount, account: Account
    ) -> None:
        head = await read_account.head(user(account.user_id), account.id)

        view = await read_account.whole(head)

        assert [t.position for t in view.transactions] == list(range(12, 2, -1))


class TestReadTransactions:
    async def test_pages_follow_one_another_and_the_last_has_no_next(
        self, read_account: ReadAccount, read: ReadTransactions, account: Account
    ) -> None:
        head = await read_account.head(user(account.user_id), account.id)

        pages, before = [], None
        while True:
            page = await read.page(head, TransactionFilter(), before=before, limit=5)
            pages.append([each.position for each in page.items])
            if (before := page.next) is None:
                break

        assert pages == [[12, 11, 10, 9, 8], [7, 6, 5, 4, 3], [2, 1]]

    async def test_a_page_has_only_what_matches_every_filter(
        self, read_account: ReadAccount, read: ReadTransactions, account: Account
    ) -> None:
        head = await read_account.head(user(account.user_id), account.id)

        async def found(**given: Any) -> int:
            page = await read.page(head, TransactionFilter(**given), before=None, limit=50)
            return len(page.items)

        assert await found(kind=TransactionKind.DEPOSIT) == 11
        assert await found(kind=TransactionKind.OPENING, since=NOW) == 1
        assert await found(kind=TransactionKind.OPENING, since=NOW + SECOND) == 0
        assert await found(until=NOW) == 0

    async def test_an_export_is_of_batches_without_what_is_posted_meanwhile(
        self,
        transactor: InMemoryTransactor,
        read_account: ReadAccount,
        read: ReadTransactions,
        account: Account,
    ) -> None:
        post(account, *[1] * BATCH)
        await store(transactor, account)
        head = await read_account.head(user(account.user_id), account.id)
        post(account, 1, 1)
        await store(transactor, account)

        batches = [
            [each.position for each in batch]
            async for batch in read.batches(head, TransactionFilter(until=NOW + SECOND))
        ]

        assert [len(batch) for batch in batches] == [BATCH, 12]
        assert [*chain(*batches)] == list(range(BATCH + 12, 0, -1))

    async def test_the_balance_is_of_a_time_that_has_passed(
        self, read_account: ReadAccount, read: ReadTransactions, account: Account
    ) -> None:
        head = await read_account.head(user(account.user_id), account.id)

        assert await read.balance(head, NOW) == (NOW, usd(66))
        assert await read.balance(head, NOW - SECOND) == (NOW - SECOND, usd(0))
        with pytest.raises(InvalidFields) as refused:
            await read.balance(head, NOW + SECOND)
        assert [(each.field, each.code) for each in refused.value.broken] == [
            ("at", "in-the-future")
        ]

    async def test_the_balance_now_has_what_a_process_posted_whose_clock_is_ahead(
        self,
        transactor: InMemoryTransactor,
        read_account: ReadAccount,
        read: ReadTransactions,
        account: Account,
    ) -> None:
        account.deposit(usd(4), posting(now=NOW + SECOND))
        await store(transactor, account)
        head = await read_account.head(user(account.user_id), account.id)

        assert await read.balance(head, None) == (NOW, usd(70))
        assert await read.balance(head, NOW) == (NOW, usd(66))
