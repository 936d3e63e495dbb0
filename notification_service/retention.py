"""Deletes what was kept for its time: finished deliveries, and events of streams.

That a delivery was planned stays known.
"""

from abc import abstractmethod
from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Executable, Integer, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from chassis.failpoints import failpoint
from chassis.periodic import Periodic
from chassis.persistence.database import Database, Row
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


class _Retention(Periodic):
    """A component that deletes rows which are older than the retention.

    It deletes a thousand at a time, and at most ten thousand in ten seconds. Any number of
    processes may run it.
    """

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
            _log.warning("not purged", of=self.name, error=type(error).__qualname__)
        return _PURGE_EVERY_S

    async def purge(self) -> int:
        """Delete up to a thousand, the oldest first, and return how many were deleted."""
        values = {"most": _BATCH, "by": self._now() - self._retention}
        async with self._database.begin() as connection:
            purged = (await connection.execute(self._delete, values)).all()
            if purged:
                await failpoint("purge.before-commit")
        if purged:
            await failpoint("purge.after-commit")
        self._count(purged)
        return len(purged)

    @property
    @abstractmethod
    def _delete(self) -> Executable:
        """Deletes up to ``most`` rows that are as old as ``by``, and returns them."""

    def _count(self, purged: Sequence[Row]) -> None:
        """Count rows that were deleted."""


class FinishedDeliveries(_Retention):
    """Deletes deliveries that were sent or failed before the retention began.

    Event, rule and id of each stay in ``purged_deliveries``, written by the same statement. One
    that an operator retries meanwhile is not deleted.
    """

    name = "finished-deliveries"

    @property
    def _delete(self) -> Executable:
        return _PURGE

    def _count(self, purged: Sequence[Row]) -> None:
        counts: Mapping[tuple[str, str], int] = Counts((row.rule, row.state) for row in purged)
        for (rule, state), count in counts.items():
            deliveries_purged.labels(rule, state).inc(count)


class OldStreamEvents(_Retention):
    """Deletes events of streams; a client that is behind one of them reads its account again."""

    name = "old-stream-events"

    @property
    def _delete(self) -> Executable:
        return _PURGE_EVENTS


_finished = (
    select(_d.id)
    .where(_d.next_attempt_at.is_(None), _d.updated_at <= bindparam("by", type_=Moment))
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

_e: Final = tables.stream_events.c
_oldest = (
    select(_e.user_id, _e.epoch, _e.number)
    .where(_e.stored_at <= bindparam("by", type_=Moment))
    .order_by(_e.stored_at)
    .limit(bindparam("most", type_=Integer))
)
_old = _oldest.with_for_update(skip_locked=True).cte("old")
_PURGE_EVENTS: Final = (
    delete(tables.stream_events)
    .where(_e.user_id == _old.c.user_id, _e.epoch == _old.c.epoch, _e.number == _old.c.number)
    .returning(_e.user_id)
)
