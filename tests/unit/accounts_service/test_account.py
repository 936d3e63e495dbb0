from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.domain.account import (
    Account,
    AccountOpened,
    Transaction,
    TransactionKind,
)
from chassis.correlation import new_id

from .making import NOW, USD, an_account, post


class TestOpening:
    def test_a_new_account_is_empty(self) -> None:
        user_id = new_id()
        account = Account.open(
            new_id(), user_id=user_id, currency=CURRENCIES["EUR"], transaction_id=new_id(), now=NOW
        )

        assert (account.user_id, account.currency.code, account.balance) == (user_id, "EUR", 0)
        assert account.opened_at == NOW

    def test_its_first_transaction_has_the_amount_zero(self) -> None:
        transaction_id = new_id()
        account = Account.open(
            new_id(), user_id=new_id(), currency=USD, transaction_id=transaction_id, now=NOW
        )

        assert list(account.take_transactions()) == [
            Transaction(transaction_id, 1, TransactionKind.OPENING, 0, 0, "Initial", NOW)
        ]

    def test_it_is_recorded(self) -> None:
        account = an_account()

        assert list(account.take_events()) == [
            AccountOpened(
                account_id=account.id, user_id=account.user_id, currency="USD", occurred_at=NOW
            )
        ]


class TestTransactions:
    def test_each_has_the_balance_after_it(self) -> None:
        account = an_account()
        post(account, 500, -200)

        positions = [(t.position, t.delta, t.balance_after) for t in account.take_transactions()]

        assert positions == [(1, 0, 0), (2, 500, 500), (3, -200, 300)]
        assert account.balance == 300

    def test_each_is_taken_once(self) -> None:
        account = an_account()
        list(account.take_transactions())

        post(account, 500)

        assert [t.position for t in account.take_transactions()] == [2]
        assert list(account.take_transactions()) == []
