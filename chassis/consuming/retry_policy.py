"""What follows from a failure: retry, blame the event, or stop the consumer."""

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

#: More aggregates parked with one error within a minute mean a bad deploy, not bad events.
DEAD_LETTER_LIMIT: Final = 50
_LIMIT_WITHIN_S: Final = 60.0

_PERMANENT: Final = {Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND, Kind.FORBIDDEN}

_MOST_CONFLICTS: Final = 20
_MOST_LOST_CONNECTIONS: Final = 2
_PROBE_WITHIN_S: Final = 2.0
BACKOFF: Final = Backoff(first_s=0.05, longest_s=5.0)


class LimitExceeded(Exception):
    """Too many aggregates would park with one error: the consumer stops until it is restarted."""


class DeadLetterLimit:
    """Counts the aggregates of one topic that parked within the last minute, by error code."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._lately: deque[tuple[float, ParkedSubject]] = deque()

    def add(self, parked: Sequence[ParkedSubject]) -> None:
        """Count these too.

        :raises LimitExceeded: too many aggregates parked with one code
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
    """Tell whether the event would be refused again, however often it is tried."""
    return isinstance(error, DomainError) and error.kind in _PERMANENT


async def is_transient(error: Exception, times: int, engine: AsyncEngine) -> bool:
    """Tell whether the event is not to blame for an error that came ``times`` times in a row.

    It is not for a conflict with another transaction, nor while the database is unreachable. It
    is where connections are lost again and again while the database answers a probe.
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
