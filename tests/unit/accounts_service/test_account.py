from datetime import timedelta
from itertools import pairwise

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.domain.account import (
    Account,
    AccountOpened,
    Transaction,
    TransactionKind,
    Transfer,
)
from accounts_service.domain.hold import Hold
from chassis.correlation import new_id

from .making import NOW, USD, an_account, place_hold, post, posting, usd

AN_HOUR = timedelta(hours=1)


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


class TestTimes:
    """Each command may run in a process whose clock is behind."""

    def test_no_event_is_earlier_than_the_one_before_it(self) -> None:
        payer, payee, by = an_account(), an_account(), new_id()
        post(payer, 300)
        payee.deposit(usd(1), posting(now=NOW + AN_HOUR))
        behind = NOW - AN_HOUR

        paid = payer.transfer(usd(100), payee, posting(TransactionKind.TRANSFER))
        transfer = Transfer(paid.id, payer.id, payee.id, 100)
        payer.reverse(transfer, payee, posting(now=behind), by=by, reason="a mistake")
        for _ in range(2):
            place_hold(payer, payee, 10, behind)
        captured, released = payer.holds
        payer.capture(captured, payee, None, transaction_id=new_id(), by=by, now=behind)
        payer.release(released, by=by, now=behind)
        payer.with_holds([a_hold(payer, payee)], behind)
        payer.freeze(by=by, reason="stolen", now=behind)
        payer.unfreeze(by=by, reason="found", now=behind)
        payer.withdraw(usd(payer.balance), posting(now=behind))
        payer.close(behind)

        times = [event.occurred_at for event in payer.take_events()]
        assert all(earlier <= later for earlier, later in pairwise(times))
        assert times[-1] == NOW + AN_HOUR == payer.moved_at


def a_hold(payer: Account, payee: Account) -> Hold:
    """Return a hold that is over."""
    over = NOW - 2 * AN_HOUR
    return Hold(new_id(), payer.id, payee.id, 1, "A hold", over, over)
