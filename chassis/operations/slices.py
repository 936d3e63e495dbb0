"""Handles parked events slice by slice, each in one transaction; after a failure event by event."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import delete, func, select, update

from chassis.consuming import retry_policy
from chassis.consuming.aggregates import lock_aggregates
from chassis.consuming.dead_letters import CannotRelease, Failure, ParkedRecord, ParkReason
from chassis.consuming.records import identity_of
from chassis.consuming.retry_policy import is_transient
from chassis.consuming.subscribers import Outcome, Subscriber, count
from chassis.failpoints import failpoint
from chassis.operations.context import AnyRuntime
from chassis.operations.dead_letter_rows import (
    details_of,
    forks,
    locked_or_gone,
    of_subject,
    releasable,
    subscriber_of,
)
from chassis.operations.operator_log import Operator
from chassis.persistence.database import Connection, Row
from chassis.persistence.tables import parked
from chassis.web.problems import TemporarilyUnavailable
from contracts.operations import (
    OperatorAct,
    ParkedEventAct,
    ParkedEventParkedAgainV1,
    ParkedEventReleasedV1,
)

#: Events handled in one transaction, at most.
SLICE: Final = 100
_SLICE_TIMEOUT_S: Final = 10.0
# The gateway waits 8 s for a response. A client may release again.
_RELEASE_FOR_S: Final = 5.0
_MOST_TRIES: Final = 5
# Why an event stays parked that has its sequence in the inbox.
_COUNTED: Final = (ParkReason.BEHIND, ParkReason.FORKED, ParkReason.VERSION_MISSED)


class StoppedAt(BaseModel):
    """The event that stays parked, and why."""

    id: UUID
    reason: ParkReason
    error_code: str
    error_message: str


class ReleaseBody(BaseModel):
    """How many events were handled, how many of the subject are left, and what stopped it.

    If some are left and nothing stopped it, its time was over: release again.
    """

    released: int
    left: int
    stopped_at: StoppedAt | None


class _Failed(Exception):
    """Handling raised.

    :ivar row: the event that failed; None if there were several
    """

    def __init__(self, row: Row | None, error: Exception) -> None:
        super().__init__()
        self.row = row
        self.error = error


@dataclass(frozen=True, slots=True)
class _Slice:
    outcomes: Sequence[Outcome]
    stopped_at: StoppedAt | None
    more: bool


Choose = Callable[[Connection, int], Awaitable[Sequence[Row]]]
"""Locks and returns the events to handle in this transaction, up to a number."""


@dataclass(frozen=True, slots=True)
class Release:
    """An operator's release of parked events of one subject.

    :ivar act: what is published of each event that was handled
    """

    runtime: AnyRuntime
    operator: Operator
    act: type[ParkedEventAct]

    async def run(self, choose: Choose, like: Row) -> ReleaseBody:
        """Handle slice after slice, and event by event after one has failed.

        :param like: any of the events, for what they have in common
        """
        subscriber = subscriber_of(self.runtime, like.subscriber, like.topic)
        released, size, failures = 0, SLICE, 0
        deadline = time.monotonic() + _RELEASE_FOR_S
        stopped_at: StoppedAt | None = None
        while stopped_at is None and time.monotonic() < deadline:
            try:
                done = await self._slice(subscriber, choose, size)
            except _Failed as failed:
                failures += 1
                if await self._is_to_be_retried(failed.error, failures):
                    continue
                if failed.row is not None:
                    stopped_at = await self._park_again(failed.row, failed.error)
                elif size == 1:
                    raise failed.error from None  # no event was chosen, so none is to blame
                size = 1
            else:
                failures = 0
                released += len(done.outcomes)
                stopped_at = done.stopped_at
                for outcome in done.outcomes:
                    count(like.subscriber, outcome)
                if not done.more:
                    break
        return await self._result(like, released, stopped_at)

    async def _is_to_be_retried(self, error: Exception, failures: int) -> bool:
        """Wait, if the event is not to blame.

        :raises TemporarilyUnavailable: that has been so for long enough
        """
        if not await is_transient(error, failures, self.runtime.database):
            return False
        if failures >= _MOST_TRIES:
            raise TemporarilyUnavailable(
                "something needed is unreachable; try again shortly"
            ) from error
        await asyncio.sleep(retry_policy.BACKOFF.pause_s(failures))
        return True

    async def _slice(self, subscriber: Subscriber[Any], choose: Choose, size: int) -> _Slice:
        """Handle up to ``size`` events in one transaction, and record the act on each.

        :raises CannotRelease: this one is not to be handled now
        :raises _Failed: nothing was changed
        """
        rows: Sequence[Row] = []
        try:
            async with self._transaction() as connection:
                rows = await choose(connection, size)
                return await self._handle(connection, subscriber, rows, size)
        except CannotRelease:
            raise
        except Exception as error:
            raise _Failed(rows[0] if len(rows) == 1 else None, error) from error

    async def _handle(
        self,
        connection: Connection,
        subscriber: Subscriber[Any],
        rows: Sequence[Row],
        size: int,
    ) -> _Slice:
        runtime = self.runtime
        work = runtime.service.open_work(connection)
        acts: dict[UUID, OperatorAct] = {}
        outcomes: list[Outcome] = []
        stopped_at: StoppedAt | None = None
        records = [ParkedRecord.of(row) for row in rows]
        await lock_aggregates(work, [(subscriber, records)])
        for row, record in zip(rows, records, strict=True):
            outcome = await subscriber.take_parked(
                work,
                connection,
                record,
                runtime.now,
                counted=row.subject is not None,
                in_order=self.act is ParkedEventReleasedV1,
            )
            if isinstance(outcome, Failure):
                stopped_at = await self._keep(connection, row, outcome)
                break
            outcomes.append(outcome)
            acts[row.id] = self.act(**details_of(row, self.operator))
        await work.flush()
        await connection.execute(delete(parked).where(parked.c.id == func.any(list(acts))))
        await runtime.operator_log.record(connection, acts)
        return _Slice(outcomes, stopped_at, more=len(rows) == size)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with asyncio.timeout(_SLICE_TIMEOUT_S), self.runtime.database.begin() as connection:
            yield connection
            await failpoint("release.before-commit")
        await failpoint("release.after-commit")

    async def _park_again(self, row: Row, error: Exception) -> StoppedAt | None:
        """Keep an event with its new error, unless another operator released or discarded it."""
        async with self._transaction() as connection:
            current = await locked_or_gone(connection, row.id)
            if current is None:
                return None
            failure = Failure.of(error, tries=1, first_tried_at=row.first_tried_at)
            return await self._keep(connection, current, failure)

    async def _keep(self, connection: Connection, row: Row, failure: Failure) -> StoppedAt:
        """Store why an event stays parked, and record the act."""
        # A fork stays one whatever its new error is, so that only a decision handles it.
        reason = ParkReason.FORKED if row.reason == ParkReason.FORKED else failure.reason
        values = {
            "reason": reason,
            "error_code": failure.code,
            "error_message": failure.message,
            "tries": row.tries + 1,
            "last_tried_at": self.runtime.now(),
        }
        if row.subject is None and reason in _COUNTED:
            # It was counted in the inbox: from now on it is one of its subject's parked events.
            identity = identity_of(ParkedRecord.of(row))
            values |= {
                "subject": identity.subject,
                "sequence": identity.sequence,
                "event_id": identity.event_id,
                "type": identity.type,
            }
        await connection.execute(update(parked).where(parked.c.id == row.id).values(values))
        act = ParkedEventParkedAgainV1(**details_of(row, self.operator), error_code=failure.code)
        await self.runtime.operator_log.record(connection, {row.id: act})
        return StoppedAt(
            id=row.id, reason=reason, error_code=failure.code, error_message=failure.message
        )

    async def _result(self, like: Row, released: int, stopped_at: StoppedAt | None) -> ReleaseBody:
        key = (like.subscriber, like.topic, like.subject)
        these = parked.c.id == like.id if like.subject is None else of_subject(*key)
        async with self.runtime.database.connect() as connection:
            left = await connection.scalar(select(func.count()).where(these))
            if left and stopped_at is None and like.subject is not None:
                stopped_at = await _blocking_fork(connection, *key)
        return ReleaseBody(released=released, left=left or 0, stopped_at=stopped_at)


async def _blocking_fork(
    connection: Connection, subscriber: str, topic: str, subject: str
) -> StoppedAt | None:
    """Return the fork that all other events of the subject wait for, if there is one."""
    key = (subscriber, topic, subject)
    if (await connection.execute(releasable(*key).limit(1))).one_or_none() is not None:
        return None
    row = (await connection.execute(forks(*key).limit(1))).one_or_none()
    return None if row is None else StoppedAt.model_validate(row, from_attributes=True)
