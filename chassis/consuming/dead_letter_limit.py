"""How many aggregates may park with one error before the consumer stops, and parks none of them."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy import bindparam, select

from chassis.consuming.dead_letters import ParkedSubject
from chassis.persistence.database import Connection
from chassis.persistence.tables import park_allowances

Reserve = Callable[[Sequence[ParkedSubject]], None]
"""Counts aggregates that park in the open transaction; raises ``LimitExceeded``."""


class LimitExceeded(Exception):
    """Too many aggregates would park with one error; none of them is parked.

    :ivar code: the error's
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class DeadLetterLimit:
    """Counts the aggregates of one topic that park, by error code, within a window of time.

    More than ``most`` with one code mean a bad deploy, not bad events. An operator may allow to
    park all the same, in a row of ``park_allowances``.
    """

    def __init__(self, topic: str, *, most: int = 50, window_s: float = 60.0) -> None:
        self._topic = topic
        self._most = most
        self._window_s = window_s
        self._parked_at: dict[str, dict[str, float]] = defaultdict(dict)
        self._allowed_below: Mapping[int, int] = {}
        self._allowances_seen = 0

    async def read_allowances(self, connection: Connection) -> int:
        """Read where an operator allowed to park; return how often that has changed.

        Several processors share the limit, and each has to learn of every change.
        """
        found = await connection.execute(_ALLOWANCES, {"of_topic": self._topic})
        allowed_below = {row.partition: row.below_offset for row in found}
        if allowed_below != self._allowed_below:
            self._allowed_below = allowed_below
            self._allowances_seen += 1
        return self._allowances_seen

    @contextmanager
    def reservation(self) -> Iterator[Reserve]:
        """Give a function that counts aggregates, and uncount them if the block raises.

        The block is their transaction: what is rolled back did not park.
        """
        reserved: list[ParkedSubject] = []

        def reserve(parked: Sequence[ParkedSubject]) -> None:
            reserved.extend(self._reserve(parked))

        try:
            yield reserve
        except BaseException:
            for each in reserved:
                self._parked_at[each.code].pop(each.subject, None)
            raise

    def _reserve(self, parked: Sequence[ParkedSubject]) -> Sequence[ParkedSubject]:
        """Count aggregates, or none of them; return those that were not counted before."""
        now = time.monotonic()
        limited = [
            each for each in parked if each.offset >= self._allowed_below.get(each.partition, 0)
        ]
        for code in {each.code for each in limited}:
            before = {
                subject: at
                for subject, at in self._parked_at[code].items()
                if now - at <= self._window_s
            }
            self._parked_at[code] = before
            together = {each.subject for each in limited if each.code == code}.union(before)
            if len(together) > self._most:
                raise LimitExceeded(
                    f"{len(together)} aggregates of {self._topic} would park with {code}"
                    f"{_parked_before(list(before))}",
                    code,
                )
        new = [each for each in limited if each.subject not in self._parked_at[each.code]]
        for each in limited:
            self._parked_at[each.code][each.subject] = now
        return new


def _parked_before(subjects: Sequence[str]) -> str:
    if not subjects:
        return ""
    names = ", ".join(subjects[:_MOST_NAMES])
    more = ", …" if len(subjects) > _MOST_NAMES else ""
    return (
        f" ({len(subjects)} of them are parked: {names}{more}; `parked release-all` releases them)"
    )


#: The message is part of the answer of readiness, so it does not grow with what parked.
_MOST_NAMES: Final = 10

_ALLOWANCES: Final = select(park_allowances.c.partition, park_allowances.c.below_offset).where(
    park_allowances.c.topic == bindparam("of_topic")
)
