"""What clients send and get. An amount of money is decimal text in both directions.

A JSON number is none: many readers would make a binary fraction of it, which 0.10 has no place in.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from accounts_service.application.ports import AccountView, Posted
from accounts_service.application.queries import LATEST_TRANSACTIONS
from accounts_service.domain.account import Account, State, Transaction, TransactionKind
from accounts_service.domain.hold import Hold, HoldState
from accounts_service.domain.money import Currency, Money
from contracts.events import PRINTABLE

LONGEST_HOLD_S: Final = 30 * 24 * 3_600

DecimalText = Annotated[
    str,
    Field(
        description="Decimal text, with the currency's decimals at most.",
        pattern=r"^-?[0-9]+(\.[0-9]+)?$",
        examples=["12.30"],
    ),
]
Amount = Annotated[DecimalText, StringConstraints(min_length=1, max_length=32)]
Description = Annotated[
    str,
    StringConstraints(min_length=3, max_length=255, pattern=PRINTABLE),
    Field(description="What the account's owner reads later.", examples=["Lunch"]),
]
Reason = Annotated[
    str,
    StringConstraints(min_length=3, max_length=255, pattern=PRINTABLE),
    Field(description="For the record: it is published, and kept for ever."),
]


class Command(BaseModel):
    # A misspelt field must not be taken for one that was left out.
    model_config = ConfigDict(extra="forbid")


class PostTransactionBody(Command):
    # As texts, which a refusal names; of an enumeration it would name Python's words.
    kind: Literal["deposit", "withdrawal"]
    amount: Amount
    description: Description

    @property
    def transaction_kind(self) -> Literal[TransactionKind.DEPOSIT, TransactionKind.WITHDRAWAL]:
        return TransactionKind.DEPOSIT if self.kind == "deposit" else TransactionKind.WITHDRAWAL


def _not_given() -> Any:
    return None


class Recipient(Command):
    """Who is to get the money: an account, or the account of a user."""

    # Left out is None; a null is refused, so that the schema can say that one of the two is there.
    to_account: UUID = Field(default_factory=_not_given)
    to_username: Annotated[
        str, StringConstraints(min_length=1, max_length=64, pattern=PRINTABLE)
    ] = Field(default_factory=_not_given)

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["to_account"]}, {"required": ["to_username"]}]}
    )

    @model_validator(mode="after")
    def _one_recipient(self) -> Self:
        if len(self.model_fields_set & {"to_account", "to_username"}) != 1:
            raise PydanticCustomError("one_recipient", "give either to_account or to_username")
        return self

    @property
    def to(self) -> UUID | str:
        """Return the account or the name, which is folded as names are."""
        if not self.to_username:
            return self.to_account
        # Some letters outside ASCII fold to one inside (U+212A to k), and are in nobody's name.
        return self.to_username.lower() if self.to_username.isascii() else self.to_username


class TransferBody(Recipient):
    from_account: UUID
    amount: Amount
    description: Description


class PlaceHoldBody(Recipient):
    account: UUID
    amount: Amount
    description: Description
    expires_in: Annotated[
        int,
        Field(
            # A number, not true or a text.
            strict=True,
            ge=1,
            le=LONGEST_HOLD_S,
            description="Seconds; the hold ends by itself then.",
        ),
    ]


class CaptureBody(Command):
    amount: Amount | None = Field(
        default=None, description="A part of what is held; the rest is free again. Null: all."
    )


class ReasonBody(Command):
    reason: Reason


class TransactionBody(BaseModel):
    """One change of the balance."""

    id: UUID = Field(description="The same for both accounts of a transfer.")
    position: int = Field(description="Counts the transactions of this account, from 1.")
    kind: TransactionKind
    delta: DecimalText = Field(description="Negative if money went out.")
    balance_after: DecimalText
    description: str
    occurred_at: datetime

    @classmethod
    def of(cls, transaction: Transaction, currency: Currency) -> Self:
        return cls(
            id=transaction.id,
            position=transaction.position,
            kind=transaction.kind,
            delta=str(Money(transaction.delta, currency)),
            balance_after=str(Money(transaction.balance_after, currency)),
            description=transaction.description,
            occurred_at=transaction.occurred_at,
        )


class PostedBody(BaseModel):
    """A transaction of your account, and the account's balance after it."""

    account_id: UUID
    currency: str = Field(description="ISO 4217.")
    balance: DecimalText
    available: DecimalText = Field(description="The balance without what is held.")
    transaction: TransactionBody

    @classmethod
    def of(cls, posted: Posted) -> Self:
        return cls(
            account_id=posted.account_id,
            currency=posted.currency.code,
            balance=str(Money(posted.balance, posted.currency)),
            available=str(Money(posted.available, posted.currency)),
            transaction=TransactionBody.of(posted.transaction, posted.currency),
        )


class HoldBody(BaseModel):
    """Money that is held for a payee."""

    id: UUID
    account_id: UUID
    payee_account_id: UUID
    state: HoldState
    currency: str = Field(description="ISO 4217.")
    amount: DecimalText
    captured: DecimalText
    description: str
    placed_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, hold: Hold, currency: Currency) -> Self:
        return cls(
            id=hold.id,
            account_id=hold.account_id,
            payee_account_id=hold.payee_id,
            state=hold.state,
            currency=currency.code,
            amount=str(Money(hold.minor_units, currency)),
            captured=str(Money(hold.captured, currency)),
            description=hold.description,
            placed_at=hold.placed_at,
            expires_at=hold.expires_at,
        )


class HeldBody(BaseModel):
    """A hold, and the payer's account with it."""

    hold: HoldBody
    balance: DecimalText
    available: DecimalText

    @classmethod
    def of(cls, hold: Hold, payer: Account) -> Self:
        return cls(
            hold=HoldBody.of(hold, payer.currency),
            balance=str(Money(payer.balance, payer.currency)),
            available=str(Money(payer.available, payer.currency)),
        )


class StateBody(BaseModel):
    """An account's state."""

    account_id: UUID
    state: State

    @classmethod
    def of(cls, account: Account) -> Self:
        return cls(account_id=account.id, state=account.state)


class AccountBody(BaseModel):
    """An account and its latest transactions."""

    id: UUID
    user_id: UUID
    currency: str = Field(description="ISO 4217.")
    state: State = Field(description="open; frozen: no money goes out; closed, for ever.")
    balance: DecimalText
    available: DecimalText = Field(description="The balance without what is held.")
    opened_at: datetime
    transactions: list[TransactionBody] = Field(
        description=f"The last {LATEST_TRANSACTIONS}, newest first."
    )

    @classmethod
    def of(cls, view: AccountView) -> Self:
        return cls(
            id=view.id,
            user_id=view.user_id,
            currency=view.currency.code,
            state=view.state,
            balance=str(Money(view.balance, view.currency)),
            available=str(Money(view.balance - view.held, view.currency)),
            opened_at=view.opened_at,
            transactions=[TransactionBody.of(each, view.currency) for each in view.transactions],
        )


def answer(body: BaseModel, status: int) -> Response:
    """Return a body as the answer to a command."""
    return JSONResponse(body.model_dump(mode="json"), status)


def posted_answer(posted: Posted) -> Response:
    """Return the answer to a command that posted a transaction."""
    return answer(PostedBody.of(posted), 201)
