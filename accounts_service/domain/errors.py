"""The errors of the accounts service.

AccountsError
├── AccountExists
└── AccountNotFound
"""

from chassis.domain import DomainError, Kind


class AccountsError(DomainError):
    """A rule of the accounts service said no."""


class AccountExists(AccountsError):
    """A user has one account, and this one has it already."""

    kind, code = Kind.CONFLICT, "account-exists"

    def __init__(self) -> None:
        super().__init__("The user has an account already.")


class AccountNotFound(AccountsError):
    """There is no such account, or it is none of the asker's business: nobody learns which."""

    kind, code = Kind.NOT_FOUND, "account-not-found"

    def __init__(self) -> None:
        super().__init__("There is no such account that you may see.")
