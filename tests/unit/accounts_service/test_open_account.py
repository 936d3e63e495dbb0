import pytest

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.in_memory import InMemoryTransactor
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.domain.errors import AccountExists
from chassis.correlation import CorrelationContext, new_id, use_correlation
from contracts.accounts import AccountOpenedV1
from contracts.envelope import decode, event_in
from contracts.topics import ACCOUNTS_ACCOUNT

from .making import NOW, now


@pytest.fixture
def transactor() -> InMemoryTransactor:
    return InMemoryTransactor(now)


@pytest.fixture
def open_account() -> OpenAccountHandler:
    return OpenAccountHandler(new_id, now, currency=CURRENCIES["CHF"])


class TestOpenAccount:
    async def test_the_user_has_an_empty_account_in_the_set_currency(
        self, transactor: InMemoryTransactor, open_account: OpenAccountHandler
    ) -> None:
        user_id = new_id()

        account_id = await transactor(lambda work: open_account(work, user_id))

        account = transactor.stored.accounts[account_id]
        assert (account.user_id, account.currency.code, account.balance) == (user_id, "CHF", 0)
        [initial] = transactor.stored.transactions[account_id]
        assert (initial.description, initial.delta, initial.occurred_at) == ("Initial", 0, NOW)

    async def test_the_opening_is_published(
        self, transactor: InMemoryTransactor, open_account: OpenAccountHandler
    ) -> None:
        user_id = new_id()
        with use_correlation(CorrelationContext("c-1", "the sign-up")):
            account_id = await transactor(lambda work: open_account(work, user_id))

        [row] = transactor.stored.outbox
        envelope = decode(row["payload"])
        assert row["aggregatetype"] == ACCOUNTS_ACCOUNT.name
        assert row["aggregateid"] == str(account_id)
        assert (envelope.source, envelope.sequence, envelope.time) == ("/accounts", 1, NOW)
        assert (envelope.correlationid, envelope.causationid) == ("c-1", "the sign-up")
        assert event_in(envelope, AccountOpenedV1) == AccountOpenedV1(
            account_id=account_id, user_id=user_id, currency="CHF"
        )

    async def test_a_second_account_is_refused_and_not_published(
        self, transactor: InMemoryTransactor, open_account: OpenAccountHandler
    ) -> None:
        user_id = new_id()
        await transactor(lambda work: open_account(work, user_id))

        with pytest.raises(AccountExists):
            await transactor(lambda work: open_account(work, user_id))

        assert len(transactor.stored.accounts) == 1
        assert len(transactor.stored.outbox) == 1
