"""Which domain events are published, and as which integration events."""

from collections.abc import Sequence
from typing import assert_never

from accounts_service.domain.account import AccountOpened
from contracts.accounts import AccountOpenedV1
from contracts.events import IntegrationEvent

Event = AccountOpened


def translate(event: Event) -> Sequence[IntegrationEvent]:
    """Return the integration events that publish a domain event; none: it is not published."""
    match event:
        case AccountOpened():
            return [
                AccountOpenedV1(
                    account_id=event.account_id, user_id=event.user_id, currency=event.currency
                )
            ]
        case _:
            assert_never(event)
