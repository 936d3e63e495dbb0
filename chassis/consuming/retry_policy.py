"""What an error comes from, and so whether the event is tried again or parked."""

import asyncio
import time
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final
from uuid import UUID

from chassis.backoff import Backoff
from chassis.domain import DomainError, Kind
from chassis.persistence.database import (
    Database,
    NoConnectionFree,
    is_conflict,
    is_connection_lost,
    is_unwell,
    ping,
)
from chassis.persistence.transactor import StaleAggregate

BACKOFF: Final = Backoff(first_s=0.05, longest_s=5.0)

_PERMANENT: Final = {Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND, Kind.FORBIDDEN}

_MOST_LOST_CONNECTIONS: Final = 2
_PROBE_WITHIN_S: Final = 2.0


class Cause(Enum):
    """What an error comes from."""

    CONTENTION = auto()  # another transaction: retried without limit
    DEPENDENCY = auto()  # something that is needed is unreachable: retried for as long as it is
    EVENT = auto()  # a rule refuses the event, and will again
    UNKNOWN = auto()

    @property
    def is_transient(self) -> bool:
        """Whether the event is not to blame."""
        return self in (Cause.CONTENTION, Cause.DEPENDENCY)


class Failures:
    """The failures in a row of one piece of work.

    :ivar count: how many there were
    :ivar error: the type of the last one
    :ivar contention_since: when other transactions began to be the only cause (monotonic seconds)
    """

    def __init__(self, database: Database) -> None:
        self.count = 0
        self.error = ""
        self.contention_since: float | None = None
        self._database = database
        self._stale: Mapping[UUID, int] = {}

    async def add(self, error: Exception) -> Cause:
        """Count one more failure, and return its cause.

        An aggregate that is stale in the very version in which it was stale before was changed by
        no other transaction: the handler is wrong, or the row is gone.
        """
        self.count += 1
        self.error = type(error).__name__
        cause = await cause_of(error, self.count, self._database)
        if isinstance(error, StaleAggregate):
            if error.versions.items() & self._stale.items():
                cause = Cause.UNKNOWN
            self._stale = error.versions
        if cause is not Cause.CONTENTION:
            self.contention_since = None
        elif self.contention_since is None:
            self.contention_since = time.monotonic()
        return cause


async def cause_of(error: Exception, times: int, database: Database) -> Cause:
    """Return what an error comes from that came ``times`` times in a row.

    A lost connection is a dependency's, but not where connections are lost again and again while
    the database answers a probe.
    """
    if isinstance(error, StaleAggregate) or is_conflict(error):
        return Cause.CONTENTION
    if is_unwell(error) or isinstance(error, NoConnectionFree):
        return Cause.DEPENDENCY
    if is_connection_lost(error):
        # A time-out of ours looks like a lost connection, and is none.
        may_be_restart = times <= _MOST_LOST_CONNECTIONS and not isinstance(error, TimeoutError)
        if may_be_restart or not await _answers(database):
            return Cause.DEPENDENCY
    if isinstance(error, DomainError) and error.kind in _PERMANENT:
        return Cause.EVENT
    return Cause.UNKNOWN


async def is_transient(error: Exception, times: int, database: Database) -> bool:
    """Tell whether the event is not to blame for an error that came ``times`` times in a row."""
    return (await cause_of(error, times, database)).is_transient


async def _answers(database: Database) -> bool:
    try:
        async with asyncio.timeout(_PROBE_WITHIN_S):
            await ping(database)
    except Exception:  # noqa: BLE001 - any failure is the answer no
        return False
    return True
