"""The errors of the accounts service.

AccountsError
├── AccountExists
└── AccountNotFound
"""

from chassis.domain import DomainError, Kind


class AccountsError(DomainError):
    """A rule of the accounts service is broken."""


class AccountExists(AccountsError):
    """A user may have only one account, and has one already."""

    kind, code = Kind.CONFLICT, "account-exists"

    def __init__(self) -> None:
        super().__init__("The user has an account already.")


class AccountNotFound(AccountsError):
    """There is no such account, or the reader may not see it; the error does not reveal which."""

    kind, code = Kind.NOT_FOUND, "account-not-found"

    def __init__(self) -> None:
        super().__init__("There is no such account that you may see.")
