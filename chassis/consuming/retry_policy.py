"""What to make of a failure while handling events: wait, suspect the event, or stop."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.backoff import Backoff
from chassis.consuming.dead_letters import ParkedSubject
from chassis.domain import DomainError, Kind
from chassis.persistence.database import is_conflict, is_connection_lost, is_unwell
from chassis.persistence.transactor import StaleAggregate

#: So many aggregates parked with one error within a minute are no bad events but a bad deploy.
DEAD_LETTER_LIMIT: Final = 50
_LIMIT_WITHIN_S: Final = 60.0

_PERMANENT: Final = {Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND, Kind.FORBIDDEN}

_MOST_CONFLICTS: Final = 20
_MOST_LOST_CONNECTIONS: Final = 2
_PROBE_WITHIN_S: Final = 2.0
BACKOFF: Final = Backoff(first_s=0.05, longest_s=5.0)


class LimitExceeded(Exception):
    """Too many aggregates would park with one error; stopped, so that a person looks first."""


class DeadLetterLimit:
    """The aggregates of one topic that failed within the last minute, and why."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._lately: deque[tuple[float, ParkedSubject]] = deque()

    def add(self, parked: Sequence[ParkedSubject]) -> None:
        """Count these as well.

        :raises LimitExceeded: they are too many
        """
        now = time.monotonic()
        self._lately.extend((now, each) for each in parked)
        while self._lately and now - self._lately[0][0] > _LIMIT_WITHIN_S:
            self._lately.popleft()
        for code in {each.code for each in parked}:
            subjects = {each.subject for _, each in self._lately if each.code == code}
            if len(subjects) > DEAD_LETTER_LIMIT:
                raise LimitExceeded(
                    f"{len(subjects)} aggregates of {self._topic} would park with {code}"
                )


def is_permanent(error: Exception) -> bool:
    """Tell whether the same event would be refused again, however often it is tried."""
    return isinstance(error, DomainError) and error.kind in _PERMANENT


async def is_transient(error: Exception, times: int, engine: AsyncEngine) -> bool:
    """Tell whether it is no fault of the event, having happened ``times`` times in a row.

    Another transaction is in the way, or the database away. Where a connection was lost and the
    database says again and again that it is well, the event is suspected.
    """
    if isinstance(error, StaleAggregate) or is_conflict(error):
        return times <= _MOST_CONFLICTS
    if is_unwell(error) or isinstance(error, PoolTimeoutError):
        return True
    if not is_connection_lost(error):
        return False
    # A time-out of ours looks like a lost connection, and is none.
    may_be_restart = times <= _MOST_LOST_CONNECTIONS and not isinstance(error, TimeoutError)
    return may_be_restart or not await _answers(engine)


async def _answers(engine: AsyncEngine) -> bool:
    try:
        async with asyncio.timeout(_PROBE_WITHIN_S), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception:  # noqa: BLE001 - any failure is the answer no
        return False
    return True
