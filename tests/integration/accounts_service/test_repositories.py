"""The service's ports on PostgreSQL: the promises of the fakes, and some of its own."""

import pytest

from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from accounts_service.adapters.postgres_views import PostgresAccountViews
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Transactor
from tests.integration.statements import statements_on
from tests.unit.accounts_service.making import an_account, now, post
from tests.unit.accounts_service.ports_suite import AccountsSuite, ViewsSuite, store


def open_work(connection: Connection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, now)


@pytest.fixture
def transact(engine: Database) -> Transactor[PostgresAccountsWork]:
    return Transactor(engine, open_work)


@pytest.fixture
def views(engine: Database) -> PostgresAccountViews:
    return PostgresAccountViews(engine)


class TestPostgresAccounts(AccountsSuite):
    async def test_a_loaded_account_equals_the_saved_one_and_can_change(
        self, transact: Transactor[PostgresAccountsWork], views: PostgresAccountViews
    ) -> None:
        account = an_account()
        post(account, 700)
        await store(transact, account)

        async def spend(work: PostgresAccountsWork) -> None:
            loaded = (await work.accounts.load([account.id]))[account.id]
            assert vars(loaded) == vars(account)
            post(loaded, -100)
            work.accounts.save(loaded)

        await transact(spend)

        view = await views.by_id(account.id, latest=10)
        assert view is not None
        assert view.balance == 600
        assert [(t.position, t.balance_after) for t in view.transactions] == [
            (3, 600),
            (2, 700),
            (1, 0),
        ]


class TestPostgresAccountViews(ViewsSuite):
    async def test_a_view_is_one_statement_and_no_transaction(
        self,
        engine: Database,
        transact: Transactor[PostgresAccountsWork],
        views: PostgresAccountViews,
    ) -> None:
        account = an_account()
        await store(transact, account)

        with statements_on(engine) as executed:
            await views.by_id(account.id, latest=10)

        assert len(executed) == 1
