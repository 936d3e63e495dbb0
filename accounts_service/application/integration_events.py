"""What others are told of what happens here, and what they are not."""

from typing import assert_never

from accounts_service.domain.account import AccountOpened
from contracts.accounts import AccountOpenedV1
from contracts.events import IntegrationEvent

Event = AccountOpened


def translate(event: Event) -> IntegrationEvent | None:
    """Say a domain event in the contract's words, or return None to keep it to ourselves."""
    match event:
        case AccountOpened():
            return AccountOpenedV1(
                account_id=event.account_id, user_id=event.user_id, currency=event.currency
            )
        case _:
            assert_never(event)
