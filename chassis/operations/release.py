"""Handles parked events after all: in order, once, and by the code that live events go through.

It holds what is known of the subject while it does, so live events of it wait and then park
behind what is left; and it goes on until nothing is left.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis import telemetry
from chassis.consuming import retry_policy
from chassis.consuming.dead_letters import CannotRelease, Failure, ParkedRecord, ParkReason
from chassis.consuming.inbox import lock_subject
from chassis.consuming.records import identity_of
from chassis.consuming.retry_policy import is_transient
from chassis.consuming.subscribers import Subscriber
from chassis.failpoints import failpoint
from chassis.operations.acts import Operator
from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letter_rows import (
    NoSuchParkedEvent,
    forks,
    in_turn,
    locked_row,
    of_subject,
    subscriber_of,
)
from chassis.operations.dead_letters import details_of
from chassis.persistence.tables import parked
from chassis.persistence.transactor import Work
from chassis.web.problems import TemporarilyUnavailable
from contracts.operations import (
    OperatorAct,
    ParkedEventAct,
    ParkedEventAppliedV1,
    ParkedEventParkedAgainV1,
    ParkedEventReleasedV1,
)

W = TypeVar("W", bound=Work)

#: Events handled in one transaction, at most.
SLICE: Final = 100
_SLICE_TIMEOUT_S: Final = 10.0
# A client waits for the answer, and the gateway no longer than 8 s: it may ask again.
_GO_ON_FOR_S: Final = 5.0
_MOST_TRIES: Final = 5


class NotFirst(CannotRelease):
    code = "not-first"


class Forked(CannotRelease):
    code = "forked"


class StoppedAt(BaseModel):
    """The event that stays parked, and why."""

    id: UUID
    reason: ParkReason
    error_code: str
    error_message: str


class ReleaseBody(BaseModel):
    """How many events were handled, how many of the subject are left, and what stopped it.

    Where some are left and nothing stopped it, time was over: ask again.
    """

    released: int
    left: int
    stopped_at: StoppedAt | None


class _Failed(Exception):
    """Handling raised; with the one event that can be meant, if it was alone."""

    def __init__(self, row: Row[Any] | None, error: Exception) -> None:
        super().__init__()
        self.row = row
        self.error = error


@dataclass(frozen=True, slots=True)
class _Slice:
    handled: int
    stopped_at: StoppedAt | None
    more: bool


Choose = Callable[[AsyncConnection, int], Awaitable[Sequence[Row[Any]]]]
"""Locks, and returns up to so many events to handle in this transaction."""


class Release(Generic[W]):
    """One operator's release of parked events."""

    def __init__(self, operations: ServiceRuntime[Any, W], operator: Operator) -> None:
        self._operations = operations
        self._operator = operator
        self._tells: type[ParkedEventAct] = ParkedEventReleasedV1

    async def one(self, id_: UUID) -> ReleaseBody:
        """Handle an event that is the first of its subject, or has none.

        :raises NoSuchParkedEvent: there is none under this id
        :raises NotFirst: another of its subject is before it
        :raises Forked: it is of another history; only ``apply`` handles it
        :raises TemporarilyUnavailable: something needed is away; nothing was changed
        """
        row = await self._find(id_)

        async def choose(connection: AsyncConnection, _most: int) -> Sequence[Row[Any]]:
            row = await _locked_or_gone(connection, id_)
            if row is None:
                return []
            if row.subject is not None:
                await _check_turn(connection, row)
            return [row]

        return await self._until_done(choose, row)

    async def apply(self, id_: UUID) -> ReleaseBody:
        """Handle an event all the same, whatever is before it, forked or not.

        :raises NoSuchParkedEvent: there is none under this id
        :raises TemporarilyUnavailable: something needed is away; nothing was changed
        """
        row = await self._find(id_)
        self._tells = ParkedEventAppliedV1

        async def choose(connection: AsyncConnection, _most: int) -> Sequence[Row[Any]]:
            row = await _locked_or_gone(connection, id_)
            return [] if row is None else [row]

        return await self._until_done(choose, row)

    async def subject(self, subscriber: str, topic: str, subject: str) -> ReleaseBody:
        """Handle all of a subject, in order, up to one that fails or is forked.

        :raises NoSuchSubscriber: the service has none of this name
        :raises TemporarilyUnavailable: something needed is away; what was released stays so
        """
        subscriber_of(self._operations, subscriber, topic)
        query = select(parked).where(of_subject(subscriber, topic, subject)).limit(1)
        async with self._operations.engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return ReleaseBody(released=0, left=0, stopped_at=None)

        async def choose(connection: AsyncConnection, most: int) -> Sequence[Row[Any]]:
            await lock_subject(connection, subscriber, topic, subject)
            return (await connection.execute(in_turn(subscriber, topic, subject).limit(most))).all()

        return await self._until_done(choose, row)

    async def _find(self, id_: UUID) -> Row[Any]:
        async with self._operations.engine.connect() as connection:
            found = await connection.execute(select(parked).where(parked.c.id == id_))
            row = found.one_or_none()
        if row is None:
            raise NoSuchParkedEvent(id_)
        subscriber_of(self._operations, row.subscriber, row.topic)
        return row

    async def _until_done(self, choose: Choose, like: Row[Any]) -> ReleaseBody:
        """Handle slice after slice, and event by event once one has failed."""
        subscriber = subscriber_of(self._operations, like.subscriber, like.topic)
        released, size, failures = 0, SLICE, 0
        deadline = time.monotonic() + _GO_ON_FOR_S
        stopped_at: StoppedAt | None = None
        while stopped_at is None and time.monotonic() < deadline:
            try:
                done = await self._slice(subscriber, choose, size)
            except _Failed as failed:
                failures += 1
                if await self._is_to_be_tried_again(failed.error, failures):
                    continue
                if failed.row is not None:
                    stopped_at = await self._park_again(failed.row, failed.error)
                elif size == 1:
                    raise failed.error from None  # no event's failure but ours
                size = 1
            else:
                failures = 0
                released += done.handled
                stopped_at = done.stopped_at
                telemetry.consumer_events.labels(like.subscriber, "handled").inc(done.handled)
                if not done.more:
                    break
        return await self._said(like, released, stopped_at)

    async def _is_to_be_tried_again(self, error: Exception, failures: int) -> bool:
        """Wait, where it is no event's fault.

        :raises TemporarilyUnavailable: that has been so for long enough
        """
        if not await is_transient(error, failures, self._operations.engine):
            return False
        if failures >= _MOST_TRIES:
            raise TemporarilyUnavailable("something needed is away; try again shortly") from error
        await asyncio.sleep(retry_policy.BACKOFF.pause_s(failures))
        return True

    async def _slice(self, subscriber: Subscriber[W], choose: Choose, size: int) -> _Slice:
        """Handle up to so many events in one transaction, and tell of each.

        :raises CannotRelease: this one is not to be handled now
        :raises _Failed: nothing was changed
        """
        rows: Sequence[Row[Any]] = []
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
        connection: AsyncConnection,
        subscriber: Subscriber[W],
        rows: Sequence[Row[Any]],
        size: int,
    ) -> _Slice:
        operations = self._operations
        work = operations.service.open_work(connection)
        acts: dict[UUID, OperatorAct] = {}
        stopped_at: StoppedAt | None = None
        for row in rows:
            failure = await subscriber.take_parked(
                work,
                connection,
                ParkedRecord.of(row),
                operations.now,
                counted=row.subject is not None,
                in_order=self._tells is ParkedEventReleasedV1,
            )
            if failure is not None:
                stopped_at = await self._keep(connection, row, failure)
                break
            acts[row.id] = self._tells(**details_of(row, self._operator))
        await work.flush()
        await connection.execute(delete(parked).where(parked.c.id == func.any(list(acts))))
        await operations.operator_log.record(connection, acts)
        return _Slice(len(acts), stopped_at, more=len(rows) == size)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with asyncio.timeout(_SLICE_TIMEOUT_S), self._operations.engine.begin() as connection:
            yield connection
            await failpoint("release.before-commit")
        await failpoint("release.after-commit")
        self._operations.committed()

    async def _park_again(self, row: Row[Any], error: Exception) -> StoppedAt | None:
        """Keep an event with its new error, unless somebody else has dealt with it by now."""
        async with self._transaction() as connection:
            current = await _locked_or_gone(connection, row.id)
            if current is None:
                return None
            failure = Failure.of(error, tries=1, first_tried_at=row.first_tried_at)
            return await self._keep(connection, current, failure)

    async def _keep(
        self, connection: AsyncConnection, row: Row[Any], failure: Failure
    ) -> StoppedAt:
        """Write down why an event stays parked, and tell it."""
        # A fork is one whatever becomes of it, so that only a decision handles it.
        reason = ParkReason.FORKED if row.reason == ParkReason.FORKED else failure.reason
        values = {
            "reason": reason,
            "error_code": failure.code,
            "error_message": failure.message,
            "tries": row.tries + 1,
            "last_tried_at": self._operations.now(),
        }
        if row.subject is None and reason in (ParkReason.BEHIND, ParkReason.FORKED):
            # Its place was found: from now on it is one of its subject's.
            label = identity_of(ParkedRecord.of(row))
            values |= {
                "subject": label.subject,
                "sequence": label.sequence,
                "event_id": label.event_id,
                "type": label.type,
            }
        await connection.execute(update(parked).where(parked.c.id == row.id).values(values))
        act = ParkedEventParkedAgainV1(**details_of(row, self._operator), error_code=failure.code)
        await self._operations.operator_log.record(connection, {row.id: act})
        return StoppedAt(
            id=row.id, reason=reason, error_code=failure.code, error_message=failure.message
        )

    async def _said(
        self, like: Row[Any], released: int, stopped_at: StoppedAt | None
    ) -> ReleaseBody:
        place = (like.subscriber, like.topic, like.subject)
        ours = parked.c.id == like.id if like.subject is None else of_subject(*place)
        async with self._operations.engine.connect() as connection:
            left = await connection.scalar(select(func.count()).where(ours))
            if left and stopped_at is None and like.subject is not None:
                stopped_at = await _fork_in_the_way(connection, *place)
        return ReleaseBody(released=released, left=left or 0, stopped_at=stopped_at)


async def _fork_in_the_way(
    connection: AsyncConnection, subscriber: str, topic: str, subject: str
) -> StoppedAt | None:
    """Return the fork that everything else of the subject waits for, if that is so."""
    place = (subscriber, topic, subject)
    if (await connection.execute(in_turn(*place).limit(1))).one_or_none() is not None:
        return None
    row = (await connection.execute(forks(*place).limit(1))).one_or_none()
    return None if row is None else StoppedAt.model_validate(row, from_attributes=True)


async def _check_turn(connection: AsyncConnection, row: Row[Any]) -> None:
    """Let an event pass that is the first of its subject.

    :raises Forked: nobody's turn is before a decision
    :raises NotFirst: another is before it
    """
    if row.reason == ParkReason.FORKED:
        raise Forked(
            "it is of another history of its subject: apply it all the same, or discard it"
        )
    place = (row.subscriber, row.topic, row.subject)
    first = (await connection.execute(in_turn(*place).limit(1))).one_or_none()
    first = first or (await connection.execute(forks(*place).limit(1))).one()
    if first.id != row.id:
        raise NotFirst(f"{first.id} of the same subject is before it")


async def _locked_or_gone(connection: AsyncConnection, id_: UUID) -> Row[Any] | None:
    try:
        return await locked_row(connection, id_)
    except NoSuchParkedEvent:
        return None  # another operator was faster
