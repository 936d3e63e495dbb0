"""The errors of the accounts service.

AccountsError
├── AccountExists
├── AccountNotFound
├── AccountFrozen, AccountNotFrozen
├── AccountClosed, AccountNotEmpty
├── AmountNotPositive
├── BalanceTooLarge
├── InsufficientFunds
├── OtherCurrency
├── SameAccount
├── UnknownRecipient, AccountNotOpenYet
├── TransferNotFound, AlreadyReversed
├── HoldNotFound, HoldNotOpen, NotThePayee
├── MoreThanHeld
└── TooManyHolds
"""

from uuid import UUID

from chassis.domain import BrokenField, DomainError, InvalidFields, Kind


class InvalidAmount(InvalidFields):
    """A text states no amount of the currency; the message says what would."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(BrokenField("amount", code, message))


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


class AccountFrozen(AccountsError):
    """An operator has frozen the account: money may come in, and none goes out."""

    kind, code = Kind.CONFLICT, "account-frozen"

    def __init__(self) -> None:
        super().__init__("The account is frozen.")


class AccountNotFrozen(AccountsError):
    """What is to end has not begun."""

    kind, code = Kind.CONFLICT, "account-not-frozen"

    def __init__(self) -> None:
        super().__init__("The account is not frozen.")


class AccountClosed(AccountsError):
    """The owner has closed the account, for ever."""

    kind, code = Kind.CONFLICT, "account-closed"

    def __init__(self) -> None:
        super().__init__("The account is closed.")


class AccountNotEmpty(AccountsError):
    """Only an account without money can be closed."""

    kind, code = Kind.CONFLICT, "account-not-empty"

    def __init__(self) -> None:
        super().__init__("There is money in the account; withdraw or transfer it first.")


class AmountNotPositive(AccountsError):
    """An amount that is moved is more than zero; the direction is in what is asked for."""

    kind, code = Kind.INVALID, "amount-not-positive"

    def __init__(self) -> None:
        super().__init__("The amount must be more than zero.")


class BalanceTooLarge(AccountsError):
    """The balance would leave the range of 64 bits."""

    kind, code = Kind.CONFLICT, "balance-too-large"

    def __init__(self) -> None:
        super().__init__("The account cannot hold that much more.")


class InsufficientFunds(AccountsError):
    """There is less money in the account than is to go out."""

    kind, code = Kind.CONFLICT, "insufficient-funds"

    def __init__(self) -> None:
        super().__init__("There is not enough money in the account.")


class OtherCurrency(AccountsError):
    """Two currencies never meet in one transaction."""

    kind, code = Kind.CONFLICT, "other-currency"

    def __init__(self) -> None:
        super().__init__("The accounts have different currencies.")


class SameAccount(AccountsError):
    """A transfer is from one account to another."""

    kind, code = Kind.INVALID, "same-account"

    def __init__(self) -> None:
        super().__init__("The money would go to the account that it comes from.")


class UnknownRecipient(AccountsError):
    """Nobody has the account or the name that the money is to go to."""

    kind, code = Kind.INVALID, "unknown-recipient"

    def __init__(self) -> None:
        super().__init__("There is no such recipient.")


class AccountNotOpenYet(AccountsError):
    """The recipient has signed up, and the account is not opened yet."""

    kind, code = Kind.CONFLICT, "account-not-open-yet"

    def __init__(self) -> None:
        super().__init__("The recipient's account is not open yet. Try again shortly.")


class TransferNotFound(AccountsError):
    """There is no transfer with this id; other kinds of transactions are not reversed."""

    kind, code = Kind.NOT_FOUND, "transfer-not-found"

    def __init__(self) -> None:
        super().__init__("There is no such transfer.")


class AlreadyReversed(AccountsError):
    """A transfer is reversed once."""

    kind, code = Kind.CONFLICT, "already-reversed"

    def __init__(self, reversal_id: UUID) -> None:
        super().__init__(f"The transfer was reversed before, by transaction {reversal_id}.")


class HoldNotFound(AccountsError):
    """There is no such hold, or it is not the caller's; the error does not reveal which."""

    kind, code = Kind.NOT_FOUND, "hold-not-found"

    def __init__(self) -> None:
        super().__init__("There is no such hold that you may see.")


class HoldNotOpen(AccountsError):
    """A hold ends once."""

    kind, code = Kind.CONFLICT, "hold-not-open"

    def __init__(self) -> None:
        super().__init__("The hold was captured or released, or has expired.")


class NotThePayee(AccountsError):
    """The payer has promised the money: only the payee, or an operator, ends the hold."""

    kind, code = Kind.FORBIDDEN, "not-the-payee"

    def __init__(self) -> None:
        super().__init__("Only the payee or an operator can capture or release the hold.")


class MoreThanHeld(AccountsError):
    """A capture is of all that is held, or of a part."""

    kind, code = Kind.CONFLICT, "more-than-held"

    def __init__(self) -> None:
        super().__init__("The amount is more than what is held.")


class TooManyHolds(AccountsError):
    """An account has a bounded number of open holds."""

    kind, code = Kind.CONFLICT, "too-many-holds"

    def __init__(self, most: int) -> None:
        super().__init__(f"The account has {most} open holds; it can have no more.")
