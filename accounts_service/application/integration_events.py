"""Which domain events are published, and as which integration events."""

from collections.abc import Sequence
from typing import assert_never

from accounts_service.domain.account import (
    AccountOpened,
    Closed,
    Frozen,
    HoldCaptured,
    HoldExpired,
    HoldPlaced,
    HoldReleased,
    TransactionCreated,
    TransferReversed,
    Unfrozen,
)
from contracts.accounts import (
    AccountClosedV1,
    AccountFrozenV1,
    AccountOpenedV1,
    AccountUnfrozenV1,
    HoldCapturedV1,
    HoldExpiredV1,
    HoldPlacedV1,
    HoldReleasedV1,
    TransactionCreatedV1,
    TransferReversedV1,
)
from contracts.events import IntegrationEvent

HoldEvent = HoldPlaced | HoldCaptured | HoldReleased | HoldExpired
StateEvent = Frozen | Unfrozen | Closed
Event = AccountOpened | TransactionCreated | TransferReversed | HoldEvent | StateEvent


def translate(event: Event) -> Sequence[IntegrationEvent]:
    """Return the integration events that publish a domain event; none: it is not published."""
    match event:
        case AccountOpened():
            return [
                AccountOpenedV1(
                    account_id=event.account_id, user_id=event.user_id, currency=event.currency
                )
            ]
        case TransactionCreated():
            return [_created(event)]
        case TransferReversed():
            return [
                TransferReversedV1(
                    account_id=event.account_id,
                    user_id=event.user_id,
                    transfer_id=event.transfer_id,
                    reversal_id=event.reversal_id,
                    by=event.by,
                    reason=event.reason,
                )
            ]
        case HoldPlaced() | HoldCaptured() | HoldReleased() | HoldExpired():
            return [_of_hold(event)]
        case Frozen() | Unfrozen() | Closed():
            return [_of_state(event)]
        case _:
            assert_never(event)


def _created(event: TransactionCreated) -> TransactionCreatedV1:
    line = event.transaction
    return TransactionCreatedV1(
        transaction_id=line.id,
        account_id=event.account_id,
        user_id=event.user_id,
        position=line.position,
        kind=line.kind,
        currency=event.currency,
        delta=line.delta,
        balance_after=line.balance_after,
        reverses=event.reverses,
    )


def _of_hold(event: HoldEvent) -> IntegrationEvent:
    match event:
        case HoldPlaced():
            return HoldPlacedV1(
                hold_id=event.hold_id,
                account_id=event.account_id,
                user_id=event.user_id,
                payee_account_id=event.payee_id,
                currency=event.currency,
                amount=event.minor_units,
                expires_at=event.expires_at,
            )
        case HoldCaptured():
            return HoldCapturedV1(
                hold_id=event.hold_id,
                account_id=event.account_id,
                user_id=event.user_id,
                transaction_id=event.transaction_id,
                amount=event.minor_units,
                currency=event.currency,
                by=event.by,
            )
        case HoldReleased():
            return HoldReleasedV1(
                hold_id=event.hold_id,
                account_id=event.account_id,
                user_id=event.user_id,
                by=event.by,
            )
        case HoldExpired():
            return HoldExpiredV1(
                hold_id=event.hold_id, account_id=event.account_id, user_id=event.user_id
            )


def _of_state(event: StateEvent) -> IntegrationEvent:
    match event:
        case Frozen():
            return AccountFrozenV1(
                account_id=event.account_id,
                user_id=event.user_id,
                by=event.by,
                reason=event.reason,
            )
        case Unfrozen():
            return AccountUnfrozenV1(
                account_id=event.account_id,
                user_id=event.user_id,
                by=event.by,
                reason=event.reason,
            )
        case Closed():
            return AccountClosedV1(account_id=event.account_id, user_id=event.user_id)
