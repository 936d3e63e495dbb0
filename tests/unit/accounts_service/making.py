"""Accounts and times for the tests of the accounts service."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.domain.account import Account, Posting, TransactionKind
from accounts_service.domain.hold import Hold
from accounts_service.domain.money import Money
from chassis.correlation import new_id

USD = CURRENCIES["USD"]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def now() -> datetime:
    return NOW


def an_account(user_id: UUID | None = None) -> Account:
    """Return an account that was just opened, and is not stored yet."""
    return Account.open(
        new_id(), user_id=user_id or new_id(), currency=USD, transaction_id=new_id(), now=NOW
    )


def usd(minor_units: int) -> Money:
    return Money(minor_units, USD)


def posting(
    kind: TransactionKind = TransactionKind.DEPOSIT,
    description: str = "A change",
    now: datetime = NOW,
) -> Posting:
    return Posting(new_id(), kind, description, now)


def post(account: Account, *deltas: int) -> None:
    """Deposit or withdraw these amounts."""
    for delta in deltas:
        if delta > 0:
            account.deposit(usd(delta), posting(TransactionKind.DEPOSIT))
        else:
            account.withdraw(usd(-delta), posting(TransactionKind.WITHDRAWAL))


def place_hold(payer: Account, payee: Account, minor_units: int, expires_at: datetime) -> None:
    hold = Hold(
        new_id(),
        payer.id,
        payee.id,
        minor_units,
        "A hold",
        expires_at - timedelta(days=1),
        expires_at,
    )
    payer.place_hold(hold, payee)
