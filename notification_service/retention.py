"""Deletes deliveries that have been finished for long; that each was planned stays known."""

from collections import Counter as Counts
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Integer, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from chassis.failpoints import failpoint
from chassis.periodic import Periodic
from chassis.persistence.database import Database
from chassis.persistence.tables import Moment
from notification_service import tables

_PURGE_EVERY_S: Final = 10.0
_BATCH: Final = 1_000
_MOST_BATCHES: Final = 10

deliveries_purged = Counter(
    "notification_deliveries_purged",
    "Deliveries deleted at the end of their retention, by the state that they ended in.",
    ["rule", "state"],
)

_log = structlog.get_logger(__name__)

_d: Final = tables.deliveries.c


class FinishedDeliveries(Periodic):
    """A component that deletes deliveries which were sent or failed before the retention began.

    It deletes a thousand at a time, and at most ten thousand in ten seconds. Any number of
    processes may run it.
    """

    name = "finished-deliveries"

    def __init__(
        self, database: Database, now: Callable[[], datetime], *, retention: timedelta
    ) -> None:
        super().__init__()
        self._database = database
        self._now = now
        self._retention = retention

    async def step(self) -> float:
        try:
            for _ in range(_MOST_BATCHES):
                if await self.purge() < _BATCH or self._stopped.is_set():
                    break
        except Exception as error:  # noqa: BLE001 - the next step deletes what is left
            _log.warning("finished deliveries not deleted", error=type(error).__qualname__)
        return _PURGE_EVERY_S

    async def purge(self) -> int:
        """Delete up to a thousand, the longest finished first, and return how many were deleted.

        Event, rule and id of each stay in ``purged_deliveries``, written by the same statement.
        One that an operator retries meanwhile is not deleted.
        """
        values = {"most": _BATCH, "finished_by": self._now() - self._retention}
        async with self._database.begin() as connection:
            gone = await connection.execute(_PURGE, values)
            purged: Mapping[tuple[str, str], int] = Counts((row.rule, row.state) for row in gone)
            if purged:
                await failpoint("purge.before-commit")
        if purged:
            await failpoint("purge.after-commit")
        for (rule, state), count in purged.items():
            deliveries_purged.labels(rule, state).inc(count)
        return sum(purged.values())


_finished = (
    select(_d.id)
    .where(_d.next_attempt_at.is_(None), _d.updated_at <= bindparam("finished_by", type_=Moment))
    .order_by(_d.updated_at)
    .limit(bindparam("most", type_=Integer))
    # Reads the row again when it has the lock, and leaves it if it is not finished any more.
    .with_for_update(skip_locked=True)
    .cte("finished")
)
_gone = (
    delete(tables.deliveries)
    .where(_d.id == _finished.c.id)
    .returning(_d.event_id, _d.rule, _d.id, _d.state)
    .cte("gone")
)
_kept = (
    insert(tables.purged_deliveries)
    .from_select(["event_id", "rule", "id"], select(_gone.c.event_id, _gone.c.rule, _gone.c.id))
    # A process of the former version plans without a look at what was purged.
    .on_conflict_do_nothing()
    .cte("kept")
)
_PURGE: Final = select(_gone.c.rule, _gone.c.state).add_cte(_kept)
