"""What the accounts service publishes: accounts, and later the money in them."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from contracts.events import EventWithheld, IntegrationEvent


class AccountOpenedV1(IntegrationEvent):
    """An account was opened for a user, with a balance of zero. The subject is the account."""

    event_type: ClassVar[str] = "accounts.account-opened.v1"

    account_id: UUID
    user_id: Annotated[UUID, Field(description="The owner.")]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="An ISO 4217 code.")]


class AccountsEventWithheldV1(EventWithheld):
    """An event of the accounts service was discarded; this one has its sequence."""

    event_type: ClassVar[str] = "accounts.event-withheld.v1"
