"""The timer worker: handles what is due, a batch at a time, at a bounded rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import structlog
from pydantic import ValidationError

from chassis import telemetry
from chassis.consuming import retry_policy
from chassis.consuming.dead_letters import Failure, not_understood, worker_died
from chassis.consuming.retry_policy import Cause, Failures
from chassis.consuming.single_events import MOST_TRIES
from chassis.correlation import use_correlation
from chassis.periodic import Polling
from chassis.persistence.claims import retries
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Work
from chassis.settings import ServiceSettings
from chassis.telemetry import span
from chassis.timers.due_timers import ClaimedTimer, ClaimLost, DueTimers
from chassis.timers.timer import Timer, TimerHandler, TimerHandlers

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

_BATCH: Final = 20
_LEASE_S: Final = 30.0
_TIMEOUT_S: Final = 10.0
_DATABASE_RETRY_S: Final = 1.0
_END_WITHIN_S: Final = 2.0
# After so many conflicts with other transactions a timer waits in the table, not in its worker.
_TRIES_AT_ONCE: Final = 3
_LOOK_EVERY_S: Final = 5.0
_LATE_AFTER_S: Final = 60.0
_RETRIES: Final = retries(longest_s=60.0)


class TimerWorker(Polling, Generic[W]):
    """Handles the due timers of a service; any number of workers may run, in any processes.

    :param open_work: makes the unit of work that handlers get
    """

    name = "timer-worker"

    def __init__(
        self,
        settings: ServiceSettings,
        database: Database,
        open_work: Callable[[Connection], W],
        handlers: TimerHandlers[W],
        *,
        lease_s: float = _LEASE_S,
    ) -> None:
        super().__init__()
        self._database = database
        self._due = DueTimers(database, open_work, lease_s=lease_s)
        self._handlers = {timer.kind: (timer, handler) for timer, handler in handlers.items()}
        if len(self._handlers) < len(handlers):
            raise ValueError("two timers have one kind")
        self._lease_s = lease_s
        self._per_s = settings.timers_per_s
        self._places = asyncio.Semaphore(settings.timers_at_once)
        #: Ends of attempts that the database did not take; it gets them before the next claim.
        self._owed: list[Callable[[], Awaitable[None]]] = []
        self._looked_at = float("-inf")
        self._overdue_s = 0.0
        self._database_trouble: str | None = None

    def trouble(self) -> str | None:
        if self._database_trouble is None and self._overdue_s > _LATE_AFTER_S:
            return f"timers are late: one has been due for {self._overdue_s:.0f} s"
        return self._database_trouble

    async def step(self, idle_s: float) -> float:
        """Handle one batch of what is due, and return how long to sleep."""
        began = time.monotonic()
        try:
            await self._end_what_is_owed()
            await self._look()
            claimed = await self._due.claim(max(1, min(_BATCH, int(self._per_s))))
        except Exception as error:  # noqa: BLE001 - the database is away; the timers stay in it
            self._database_trouble = f"the database: {type(error).__name__}"
            log.warning("no-timers-claimed", error=type(error).__name__)
            return _DATABASE_RETRY_S
        self._database_trouble = None
        # A suspect may kill this process, and is handled when no other attempt would count too.
        suspects = [each for each in claimed if each.suspect]
        await asyncio.gather(*(self._take(each, began) for each in claimed if not each.suspect))
        for each in suspects:
            await self._take(each, began)
        rest_s = len(claimed) / self._per_s - (time.monotonic() - began)
        return max(rest_s, self.next_idle_s(idle_s, found=bool(claimed)))

    async def _end_what_is_owed(self) -> None:
        while self._owed:
            await self._owed[0]()
            self._owed.pop(0)

    async def _look(self) -> None:
        """Report what waits, every few seconds."""
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        waiting = await self._due.waiting()
        self._looked_at = time.monotonic()
        self._overdue_s = waiting.overdue_s
        telemetry.timers_due.set(waiting.due)
        telemetry.timers_parked_waiting.set(waiting.parked)
        telemetry.timers_overdue_seconds.set(waiting.overdue_s)

    async def _take(self, claimed: ClaimedTimer, began: float) -> None:
        """Handle, put back or park one timer of a batch that was claimed at ``began``."""
        last_begin = began + self._lease_s - _TIMEOUT_S
        async with self._places:
            with (
                use_correlation(claimed.correlation),
                span(
                    f"timer {claimed.kind}",
                    links=[claimed.traceparent] if claimed.traceparent else (),
                    timer_id=str(claimed.due.id),
                    attempt=claimed.tries,
                ) as current,
            ):
                outcome = await self._attempt(claimed, last_begin)
                current.set_attribute("outcome", outcome)
        telemetry.timers_tried.labels(claimed.kind, outcome).inc()

    async def _attempt(self, claimed: ClaimedTimer, last_begin: float) -> str:
        """Return how it went."""
        if self._stopping or time.monotonic() > last_begin:
            return await self._end("given-back", lambda: self._due.give_back(claimed))
        if claimed.tries > MOST_TRIES:
            return await self._park(claimed, worker_died(claimed.tries - 1, claimed.first_tried_at))
        try:
            what, handler = self._read(claimed)
        except (KeyError, ValidationError):
            return await self._park(claimed, not_understood("No handler understands this timer."))
        failures = Failures(self._database)
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._due.handle(claimed, lambda work: handler(work, what, claimed.due))
            except ClaimLost:
                return "claim-lost"
            except Exception as error:  # noqa: BLE001 - the worker must not stop
                cause = await failures.add(error)
                pause_s = retry_policy.BACKOFF.pause_s(failures.count)
                is_last = (
                    failures.count == _TRIES_AT_ONCE or time.monotonic() + pause_s > last_begin
                )
                if cause is not Cause.CONTENTION or is_last:
                    return await self._fail(claimed, error, cause)
                await asyncio.sleep(pause_s)
            else:
                return "handled"

    def _read(self, claimed: ClaimedTimer) -> tuple[Timer, TimerHandler[W]]:
        """Return what is to be done, and its handler.

        :raises KeyError: this service has no handler of that kind
        :raises ValidationError: the data is of another version of the model
        """
        model, handler = self._handlers[claimed.kind]
        return model.model_validate(claimed.data), handler

    async def _fail(self, claimed: ClaimedTimer, error: Exception, cause: Cause) -> str:
        failure = Failure.of(error, tries=claimed.tries, first_tried_at=claimed.first_tried_at)
        if not cause.is_transient:
            log.warning(
                "timer-failed",
                kind=claimed.kind,
                timer_id=str(claimed.due.id),
                error=type(error).__name__,
                exc_info=error,
            )
            if cause is Cause.EVENT or claimed.tries >= MOST_TRIES:
                return await self._park(claimed, failure)
        backoff = retry_policy.BACKOFF if cause.is_transient else _RETRIES
        pause_s = backoff.pause_s(claimed.failures)
        counts = not cause.is_transient
        code = cause.name.lower() if cause.is_transient else failure.code
        return await self._end(
            "put-back", lambda: self._due.put_back(claimed, pause_s, code, counts=counts)
        )

    async def _park(self, claimed: ClaimedTimer, failure: Failure) -> str:
        log.warning(
            "timer-parked", kind=claimed.kind, timer_id=str(claimed.due.id), code=failure.code
        )
        return await self._end("parked", lambda: self._due.park(claimed, failure))

    async def _end(self, outcome: str, ending: Callable[[], Awaitable[None]]) -> str:
        """End an attempt, now or when the database is there again."""
        try:
            async with asyncio.timeout(_END_WITHIN_S):
                await ending()
        except Exception as error:  # noqa: BLE001 - the database is away
            log.info("timer-end-owed", error=type(error).__name__)
            self._owed.append(ending)
        return outcome
