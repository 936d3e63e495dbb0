"""A hold: money of an account that is kept for a payee until it is captured, or a time has come."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

MOST_OPEN_HOLDS: Final = 100
"""Of one account: all of them are read when the account is locked."""


class HoldState(StrEnum):
    """What became of a hold; only an open one counts."""

    OPEN = "open"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(slots=True)
class Hold:
    """Money that its account cannot spend otherwise.

    :ivar minor_units: what is held, more than zero
    :ivar captured: what of it the payee took; the rest was free again
    """

    id: UUID
    account_id: UUID
    payee_id: UUID
    minor_units: int
    description: str
    placed_at: datetime
    expires_at: datetime
    state: HoldState = HoldState.OPEN
    captured: int = 0
