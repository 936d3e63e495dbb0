from uuid import UUID

import pytest

from accounts_service.adapters.in_memory import InMemoryAccountViews, InMemoryTransactor
from accounts_service.application.queries import ReadAccount, Reader
from accounts_service.domain.account import Account
from accounts_service.domain.errors import AccountNotFound
from chassis.correlation import new_id

from .making import an_account, now, post
from .ports_suite import store


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


def user(id_: UUID) -> Reader:
    return Reader(user_id=id_, operator=False)


class TestReadAccount:
    async def test_the_owner_sees_it(self, read_account: ReadAccount, account: Account) -> None:
        owner = user(account.user_id)

        assert (await read_account.by_id(owner, account.id)).id == account.id
        assert (await read_account.of_user(owner, account.user_id)).id == account.id

    async def test_an_operator_sees_it(self, read_account: ReadAccount, account: Account) -> None:
        operator = Reader(user_id=new_id(), operator=True)

        assert (await read_account.by_id(operator, account.id)).id == account.id
        assert (await read_account.of_user(operator, account.user_id)).id == account.id

    async def test_others_do_not_find_it(self, read_account: ReadAccount, account: Account) -> None:
        other_user = user(new_id())

        with pytest.raises(AccountNotFound):
            await read_account.by_id(other_user, account.id)
        with pytest.raises(AccountNotFound):
            await read_account.of_user(other_user, account.user_id)

    async def test_a_missing_account_is_not_found(
        self, read_account: ReadAccount, account: Account
    ) -> None:
        operator = Reader(user_id=new_id(), operator=True)

        with pytest.raises(AccountNotFound):
            await read_account.by_id(operator, new_id())
        with pytest.raises(AccountNotFound):
            await read_account.of_user(operator, new_id())

    async def test_it_shows_ten_transactions(
        self, read_account: ReadAccount, account: Account
    ) -> None:
        view = await read_account.by_id(user(account.user_id), account.id)

        assert [t.position for t in view.transactions] == list(range(12, 2, -1))
