"""The delivery worker: sends due deliveries, outside of any transaction and any agent."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Final

import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Histogram

from chassis.correlation import CorrelationContext, use_correlation
from chassis.failpoints import failpoint
from chassis.periodic import LONGEST_IDLE_S, Polling
from chassis.persistence.claims import retries
from chassis.telemetry import span
from notification_service.chat import (
    Chat,
    ChatError,
    Message,
    OutcomeUnknown,
    RateLimited,
    Refused,
)
from notification_service.deliveries import ClaimedDelivery, DeliveryQueue

_DATABASE_RETRY_S: Final = 1.0
# Only a clock that was set back needs it.
_RESTART_WAITS_EVERY_S: Final = 5.0
# How far the chat's clock may differ from ours.
_CLOCK_DIFFERENCE: Final = timedelta(minutes=1)

deliveries_tried = Counter(
    "notification_deliveries", "Attempts to send a delivery, by outcome.", ["rule", "outcome"]
)
deliveries_maybe_repeated = Counter(
    "notification_deliveries_maybe_repeated", "Deliveries that may have arrived twice.", ["rule"]
)
delivery_seconds = Histogram(
    "notification_delivery_seconds",
    "Time from the planning of a delivery to its arrival.",
    ["rule"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)

_log = structlog.get_logger(__name__)


class ClaimLost(ChatError):
    """The lease is over, or nearly over, so another worker may send it; nothing was sent."""

    def __init__(self) -> None:
        super().__init__("claim_lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The worker's time limits, in seconds.

    :param call_s: longest wait for an answer of the chat; less than the lease
    :param lease_s: time after which another worker may claim the delivery
    :param settle_s: time after which a search finds every posted message
    :param longest_retry_s: longest wait between two attempts
    """

    call_s: float
    lease_s: float
    settle_s: float
    longest_retry_s: float


class DeliveryWorker(Polling):
    """Sends the deliveries of one chat; any number of workers may run, in any processes.

    The worker claims a delivery in one transaction, sends it outside of any, and marks it in
    another. If an attempt may have arrived without an answer, the worker searches for the message
    before it sends it again.
    """

    name = "delivery-worker"

    def __init__(
        self,
        queue: DeliveryQueue,
        chat: Chat,
        now: Callable[[], datetime],
        timeouts: Timeouts,
        *,
        concurrency: int,
    ) -> None:
        super().__init__()
        self._queue = queue
        self._chat = chat
        self._now = now
        self._timeouts = timeouts
        self._concurrency = concurrency
        #: Whether more may be due than the worker can send at once.
        self._more_waits = False
        self._restarted_at = -inf
        self._database_trouble: str | None = None
        self._chat_trouble: str | None = None

    def trouble(self) -> str | None:
        return self._database_trouble or self._chat_trouble

    async def step(self, idle_s: float) -> float:
        """Claim as many as can be sent at once, start them, and return how long to sleep."""
        free = self._concurrency - len(self._begun)
        if not free:
            self._more_waits = True
            return LONGEST_IDLE_S  # the end of a delivery wakes the worker
        now = self._now()
        try:
            claimed = await self._queue.claim(
                now,
                lease_until=self._lease_until(now),
                reclaim_at=self._reclaim_at(now),
                limit=free,
            )
            if not claimed and time.monotonic() - self._restarted_at >= _RESTART_WAITS_EVERY_S:
                await self._queue.restart_waits(now)
                self._restarted_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - the database is unreachable; the deliveries stay in it
            self._database_trouble = f"the database: {type(error).__name__}"
            _log.warning("no deliveries claimed", error=type(error).__qualname__)
            return _DATABASE_RETRY_S
        self._database_trouble = None
        self._more_waits = len(claimed) == free
        for each in claimed:
            task = asyncio.create_task(self._deliver(each))
            self._begun.add(task)
            task.add_done_callback(self._done)
        return self.next_idle_s(idle_s, found=bool(claimed))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._begun.discard(task)
        if self._more_waits:
            self._wake.set()

    async def _deliver(self, claimed: ClaimedDelivery) -> None:
        with (
            use_correlation(CorrelationContext(claimed.correlation_id, str(claimed.event_id))),
            span(
                f"deliver {claimed.rule}",
                SpanKind.CLIENT,
                parent=claimed.traceparent,
                delivery_id=str(claimed.id),
                attempt=claimed.attempt,
            ) as current,
        ):
            outcome = "unmarked"
            try:
                outcome = await self._send_and_mark(claimed)
            except Exception:  # noqa: BLE001 - the worker must not stop
                # After the lease the message is searched for before it is sent again.
                _log.exception("delivery not marked", delivery_id=str(claimed.id))
            current.set_attribute("outcome", outcome)
            deliveries_tried.labels(claimed.rule, outcome).inc()
            _log.info(
                "delivery",
                delivery_id=str(claimed.id),
                rule=claimed.rule,
                attempt=claimed.attempt,
                outcome=outcome,
            )

    async def _send_and_mark(self, claimed: ClaimedDelivery) -> str:
        await failpoint("delivery.after-claim")
        try:
            message_id = await self._send(claimed)
        except ChatError as error:
            self._chat_trouble = f"the chat: {error.code}"
            _log.warning("not delivered", delivery_id=str(claimed.id), error=error.code)
            if isinstance(error, Refused):
                if not await self._queue.failed(claimed, error.code, self._now()):
                    return "claim-lost"
                _log.error(
                    "delivery-failed",
                    delivery_id=str(claimed.id),
                    rule=claimed.rule,
                    error=error.code,
                )
                return "failed"
            held = await self._put_back(claimed, error)
            return "put-back" if held else "claim-lost"
        self._chat_trouble = None
        now = self._now()
        held = await self._queue.sent(claimed, message_id, now)
        await failpoint("delivery.after-mark")
        delivery_seconds.labels(claimed.rule).observe((now - claimed.created_at).total_seconds())
        return "sent" if held else "claim-lost"

    async def _send(self, claimed: ClaimedDelivery) -> str:
        """Return the id of the message, which was found or posted.

        :raises ChatError: the subclass shows whether this attempt may have arrived
        """
        lease_until = claimed.lease_until
        if claimed.unsure_since is not None:
            since = claimed.unsure_since - _CLOCK_DIFFERENCE
            found = await self._chat.find(claimed.address, claimed.id, since=since)
            if found is not None:
                return found
            now = self._now()
            if not await self._queue.will_repeat(claimed, now, reclaim_at=self._reclaim_at(now)):
                raise ClaimLost
            lease_until = self._lease_until(now)
            deliveries_maybe_repeated.labels(claimed.rule).inc()
        # After a pause of its process the worker must not send what another one has sent since.
        if self._now() + timedelta(seconds=self._timeouts.call_s) > lease_until:
            raise ClaimLost
        await failpoint("delivery.before-post")
        message_id = await self._chat.post(
            Message(claimed.address, claimed.text, claimed.id, claimed.correlation_id)
        )
        await failpoint("delivery.after-post")
        return message_id

    async def _put_back(self, claimed: ClaimedDelivery, error: ChatError) -> bool:
        now = self._now()
        unsure = isinstance(error, OutcomeUnknown)
        if isinstance(error, RateLimited):
            wait_s = error.retry_after_s
            until = now + timedelta(seconds=wait_s)
            await self._queue.pause(claimed.address, now, until=until)
        else:
            wait_s = retries(self._timeouts.longest_retry_s).pause_s(claimed.attempt)
        if unsure:
            wait_s = max(wait_s, self._timeouts.settle_s)
        at = now + timedelta(seconds=wait_s)
        return await self._queue.put_back(claimed, error.code, now, at=at, unsure=unsure)

    def _lease_until(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._timeouts.lease_s)

    def _reclaim_at(self, now: datetime) -> datetime:
        """Return when a delivery that is not marked by then can be claimed again."""
        return now + timedelta(seconds=self._timeouts.lease_s + self._timeouts.settle_s)
