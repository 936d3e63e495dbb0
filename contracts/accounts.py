"""What the accounts service publishes: accounts, and the money in them.

An amount is a whole number of its currency's minor units, as 1230 for 12.30 USD.
"""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import AwareDatetime, Field

from contracts.events import EventWithheld, IntegrationEvent, Text

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="An ISO 4217 code.")]
# What PostgreSQL keeps as bigint, and JSON readers as a 64-bit integer.
Amount = Annotated[int, Field(ge=-(2**63), lt=2**63, description="Minor units.")]
Owner = Annotated[UUID, Field(description="The owner.")]
Operator = Annotated[UUID, Field(description="The operator who did it.")]


class AccountOpenedV1(IntegrationEvent):
    """An account was opened for a user. The subject is the account.

    This is the account's first transaction too: position 1, of zero.
    """

    event_type: ClassVar[str] = "accounts.account-opened.v1"

    account_id: UUID
    user_id: Owner
    currency: Currency


class TransactionCreatedV1(IntegrationEvent):
    """The balance of an account changed. The subject is the account.

    A transaction between two accounts is one event for each, both with its id; either may come
    first. What people wrote about it is left out: it is theirs, and what is published is kept for
    ever.
    """

    event_type: ClassVar[str] = "accounts.transaction-created.v1"

    transaction_id: Annotated[UUID, Field(description="The same for both accounts.")]
    account_id: UUID
    user_id: Owner
    position: Annotated[
        int, Field(ge=2, description="Counts the account's transactions without a gap.")
    ]
    kind: Annotated[
        str,
        Field(
            pattern=r"^[a-z-]{1,32}$",
            description="deposit, withdrawal, transfer, reversal or capture. Others may come.",
        ),
    ]
    currency: Currency
    delta: Annotated[Amount, Field(description="Minor units; negative: money went out.")]
    balance_after: Annotated[Amount, Field(ge=0)]
    reverses: Annotated[
        UUID | None, Field(description="The transaction that it reverses; null: none.")
    ] = None


class TransferReversedV1(IntegrationEvent):
    """An operator reversed a transfer. The subject is the account that paid it.

    The money's way back is a transaction of its own, with an event for each account.
    """

    event_type: ClassVar[str] = "accounts.transfer-reversed.v1"

    account_id: UUID
    user_id: Owner
    transfer_id: Annotated[UUID, Field(description="The transaction that was reversed.")]
    reversal_id: Annotated[UUID, Field(description="The transaction that reverses it.")]
    by: Operator
    reason: Text


class HoldPlacedV1(IntegrationEvent):
    """Money of an account is held for a payee. The subject is the account that pays.

    The balance stays; what can be spent is less by the amount until the hold ends: by one of
    ``hold-captured``, ``hold-released`` and ``hold-expired``.
    """

    event_type: ClassVar[str] = "accounts.hold-placed.v1"

    hold_id: UUID
    account_id: UUID
    user_id: Owner
    payee_account_id: UUID
    currency: Currency
    amount: Annotated[Amount, Field(gt=0)]
    expires_at: Annotated[AwareDatetime, Field(description="It ends by itself then.")]


class HoldCapturedV1(IntegrationEvent):
    """The payee took what was held, or a part of it. The subject is the account that paid.

    The money's way is a transaction of its own, with an event for each account.
    """

    event_type: ClassVar[str] = "accounts.hold-captured.v1"

    hold_id: UUID
    account_id: UUID
    user_id: Owner
    transaction_id: UUID
    amount: Annotated[Amount, Field(gt=0, description="The rest of the hold is free again.")]
    currency: Annotated[
        Currency | None, Field(description="Absent in events from before it was added.")
    ] = None
    by: Annotated[UUID, Field(description="The payee, or an operator.")]


class HoldReleasedV1(IntegrationEvent):
    """What was held is free again. The subject is the account that would have paid."""

    event_type: ClassVar[str] = "accounts.hold-released.v1"

    hold_id: UUID
    account_id: UUID
    user_id: Owner
    by: Annotated[UUID, Field(description="The payee, or an operator.")]


class HoldExpiredV1(IntegrationEvent):
    """The time of a hold was over. The subject is the account that would have paid.

    The event may come later than the time: the hold has counted for nothing since.
    """

    event_type: ClassVar[str] = "accounts.hold-expired.v1"

    hold_id: UUID
    account_id: UUID
    user_id: Owner


class AccountFrozenV1(IntegrationEvent):
    """An operator froze an account: no money goes out. The subject is the account."""

    event_type: ClassVar[str] = "accounts.account-frozen.v1"

    account_id: UUID
    user_id: Owner
    by: Operator
    reason: Text


class AccountUnfrozenV1(IntegrationEvent):
    """An operator ended the freezing of an account. The subject is the account."""

    event_type: ClassVar[str] = "accounts.account-unfrozen.v1"

    account_id: UUID
    user_id: Owner
    by: Operator
    reason: Text


class AccountClosedV1(IntegrationEvent):
    """The owner closed an account, for ever. The subject is the account."""

    event_type: ClassVar[str] = "accounts.account-closed.v1"

    account_id: UUID
    user_id: Owner


class AccountsEventWithheldV1(EventWithheld):
    """An event of the accounts service was discarded; this one has its sequence."""

    event_type: ClassVar[str] = "accounts.event-withheld.v1"
