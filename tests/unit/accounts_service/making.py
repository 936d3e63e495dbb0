"""Accounts and times for the tests of the accounts service."""

from datetime import UTC, datetime
from uuid import UUID

from accounts_service.domain.account import Account
from chassis.correlation import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def now() -> datetime:
    return NOW


def an_account(user_id: UUID | None = None) -> Account:
    """Return an account that was just opened, and is not stored yet."""
    return Account.open(
        new_id(), user_id=user_id or new_id(), currency="USD", transaction_id=new_id(), now=NOW
    )


def post(account: Account, *deltas: int) -> None:
    """Post transactions of these amounts."""
    for delta in deltas:
        account._post(new_id(), delta, f"A change of {delta}", NOW)
