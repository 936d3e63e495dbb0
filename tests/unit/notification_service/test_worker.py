import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.correlation import current_correlation
from chassis.testing import Clock
from notification_service.chat import Message, OutcomeUnknown, RateLimited, Refused, Unreachable
from notification_service.deliveries import ClaimedDelivery, PlannedDelivery, State
from notification_service.in_memory import InMemoryChat, InMemoryDeliveries, StoredDelivery
from notification_service.worker import DeliveryWorker, Timeouts

from .making import after, planned

TIMEOUTS = Timeouts(call_s=10, lease_s=15, settle_s=3, longest_retry_s=60)
Logged = Sequence[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the fakes offer no event
            await asyncio.sleep(0.002)


class Bench:
    """A worker with fakes: a queue, a chat, a clock."""

    def __init__(
        self,
        chat: InMemoryChat | None = None,
        queue: InMemoryDeliveries | None = None,
        *,
        concurrency: int = 4,
    ) -> None:
        # The fake chat uses the real time, so the deliveries' clock starts with it.
        self.began = datetime.now(UTC)
        self.clock = Clock(self.began)
        self.chat = chat or InMemoryChat()
        self.queue = queue or InMemoryDeliveries()
        self.worker = DeliveryWorker(
            self.queue, self.chat, self.clock, TIMEOUTS, concurrency=concurrency
        )

    def plan(self, **changes: Any) -> PlannedDelivery:
        delivery = planned(**{"created_at": self.clock()} | changes)
        self.queue.plan(delivery)
        self.worker.wake()
        return delivery

    def advance(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.worker.wake()

    def stored(self, delivery: PlannedDelivery) -> StoredDelivery:
        return self.queue.stored[delivery.id]

    async def until(
        self, delivery: PlannedDelivery, state: State, attempts: int = 1
    ) -> StoredDelivery:
        it = self.stored(delivery)
        await eventually(lambda: (it.state, it.attempts) == (state, attempts))
        return it

    async def abandoned(self) -> PlannedDelivery:
        """Plan and claim a delivery, and never mark it."""
        delivery = self.plan()
        await self.queue.claim(self.clock(), lease_until=after(0), reclaim_at=self.clock(), limit=1)
        return delivery

    @property
    def texts(self) -> list[str]:
        return [message.text for _, message in self.chat.messages]


@asynccontextmanager
async def working(bench: Bench) -> AsyncIterator[Bench]:
    running = asyncio.create_task(bench.worker.run())
    try:
        yield bench
    finally:
        await bench.worker.stop()
        async with asyncio.timeout(30):
            await running


class TestSending:
    async def test_a_due_delivery_is_sent_and_marked(self) -> None:
        async with working(Bench()) as bench:
            delivery = bench.plan()
            stored = await bench.until(delivery, State.SENT)

        ((message_id, message),) = bench.chat.messages
        assert message == Message("growth", "ada signed up", delivery.id, "c-1")
        assert (stored.message_id, stored.sent_at) == (message_id, bench.began)
        assert not stored.maybe_repeated

    async def test_no_more_are_sent_at_once_than_allowed(self) -> None:
        chat = SlowChat()
        async with working(Bench(chat, concurrency=2)) as bench:
            deliveries = [bench.plan() for _ in range(5)]
            await eventually(lambda: chat.waiting == 2)
            claimed = [each for each in deliveries if bench.stored(each).state is State.SENDING]
            chat.answer.set()
            for each in deliveries:
                await bench.until(each, State.SENT)

        assert len(claimed) == 2
        assert chat.most_waiting == 2

    async def test_a_stop_waits_for_started_deliveries_and_starts_no_more(self) -> None:
        bench = Bench(chat := SlowChat(), concurrency=1)
        started, waiting = bench.plan(created_at=after(-9)), bench.plan()
        running = asyncio.create_task(bench.worker.run())
        await eventually(lambda: chat.waiting == 1)

        await bench.worker.stop()
        done, _ = await asyncio.wait({running}, timeout=0.2)
        chat.answer.set()
        async with asyncio.timeout(30):
            await running

        assert not done
        assert bench.stored(started).state is State.SENT
        assert bench.stored(waiting).state is State.PENDING


class SlowChat(InMemoryChat):
    """Answers when ``answer`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = asyncio.Event()
        self.waiting = 0
        self.most_waiting = 0

    async def post(self, message: Message) -> str:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await self.answer.wait()
        self.waiting -= 1
        return await super().post(message)


class TestAnUnfinishedDelivery:
    async def test_that_arrived_is_found_and_not_sent_again(self) -> None:
        bench = Bench()
        delivery = await bench.abandoned()
        message_id = await bench.chat.post(Message("growth", "ada signed up", delivery.id, "c-1"))

        async with working(bench):
            stored = await bench.until(delivery, State.SENT, attempts=2)

        assert bench.texts == ["ada signed up"]
        assert (stored.message_id, stored.maybe_repeated) == (message_id, False)

    async def test_that_is_not_found_is_marked_and_then_sent_again(self) -> None:
        bench = Bench(chat := MarkedFirst())
        delivery = await bench.abandoned()
        chat.delivery = bench.stored(delivery)

        async with working(bench):
            stored = await bench.until(delivery, State.SENT, attempts=2)

        assert bench.texts == ["ada signed up"]
        assert stored.maybe_repeated
        assert chat.was_marked == [True]

    async def test_is_not_sent_if_the_search_fails(self) -> None:
        bench = Bench()
        delivery = await bench.abandoned()
        bench.chat.fail_next_search(OutcomeUnknown("http_500"))

        async with working(bench):
            stored = await bench.until(delivery, State.PENDING, attempts=2)

        assert bench.texts == []
        assert (stored.last_error, stored.unsure_since) == ("http_500", bench.began)


class MarkedFirst(InMemoryChat):
    """Records at each post whether the delivery was marked before."""

    delivery: StoredDelivery

    def __init__(self) -> None:
        super().__init__()
        self.was_marked: list[bool] = []

    async def post(self, message: Message) -> str:
        self.was_marked.append(self.delivery.maybe_repeated)
        return await super().post(message)


class TestWhenTheChatFails:
    async def test_a_message_that_timed_out_after_the_post_is_found_and_not_sent_again(
        self,
    ) -> None:
        bench = Bench()
        bench.chat.fail_next_post(OutcomeUnknown("timeout"), posted=True)

        async with working(bench):
            delivery = bench.plan()
            stored = await bench.until(delivery, State.PENDING)
            settled_at = stored.next_attempt_at
            bench.advance(60)
            await bench.until(delivery, State.SENT, attempts=2)

        assert settled_at is not None
        assert (settled_at - bench.began).total_seconds() >= TIMEOUTS.settle_s
        assert bench.texts == ["ada signed up"]
        assert not stored.maybe_repeated

    async def test_a_message_with_a_server_error_is_not_found_and_sent_again(self) -> None:
        bench = Bench()
        bench.chat.fail_next_post(OutcomeUnknown("http_500"))

        async with working(bench):
            delivery = bench.plan()
            await bench.until(delivery, State.PENDING)
            bench.advance(60)
            stored = await bench.until(delivery, State.SENT, attempts=2)

        assert bench.texts == ["ada signed up"]
        assert stored.maybe_repeated

    async def test_a_rate_limit_holds_for_the_whole_address(self) -> None:
        bench = Bench()
        bench.chat.fail_next_post(RateLimited(30))

        async with working(bench):
            first = bench.plan()
            stored = await bench.until(first, State.PENDING)
            second = bench.plan(text="bob signed up")
            elsewhere = bench.plan(address="missing")
            await bench.until(elsewhere, State.FAILED)
            bench.advance(29)
            third = bench.plan(address="missing")
            await bench.until(third, State.FAILED)
            while_paused = (bench.texts, bench.stored(second).attempts, stored.attempts)
            bench.advance(1)
            await bench.until(first, State.SENT, attempts=2)
            await bench.until(second, State.SENT, attempts=1)

        assert while_paused == ([], 0, 1)
        assert sorted(bench.texts) == ["ada signed up", "bob signed up"]

    @pytest.mark.parametrize("error", [RateLimited(1), Unreachable("unreachable")])
    async def test_a_message_that_did_not_arrive_is_not_searched_for(
        self, error: RateLimited | Unreachable
    ) -> None:
        bench = Bench()
        bench.chat.fail_next_post(error)
        bench.chat.fail_next_search(Refused("no search is expected"))

        async with working(bench):
            delivery = bench.plan()
            await bench.until(delivery, State.PENDING)
            bench.advance(60)
            stored = await bench.until(delivery, State.SENT, attempts=2)

        assert not stored.maybe_repeated

    async def test_a_refusal_is_final_and_reported_and_logged_once(self, logged: Logged) -> None:
        bench = Bench()
        bench.chat.fail_next_post(Refused("token_revoked"))

        async with working(bench):
            delivery = bench.plan()
            stored = await bench.until(delivery, State.FAILED)
            trouble = bench.worker.trouble()
            bench.advance(3600)
            other = bench.plan()
            await bench.until(other, State.SENT)

        assert (stored.last_error, stored.attempts) == ("token_revoked", 1)
        assert trouble == "the chat: token_revoked"
        [line] = [line for line in logged if line["event"] == "delivery-failed"]
        assert (line["delivery_id"], line["error"]) == (str(delivery.id), "token_revoked")
        assert bench.worker.trouble() is None

    async def test_the_wait_between_attempts_is_bounded(self) -> None:
        bench = Bench()
        waits = []

        async with working(bench):
            for _ in range(40):
                bench.chat.fail_next_post(Unreachable("unreachable"))
            delivery = bench.plan()
            for attempt in range(1, 41):
                stored = await bench.until(delivery, State.PENDING, attempts=attempt)
                assert stored.next_attempt_at is not None
                waits.append((stored.next_attempt_at - bench.clock()).total_seconds())
                bench.advance(TIMEOUTS.longest_retry_s)

        assert max(waits) <= TIMEOUTS.longest_retry_s
        assert max(waits[-20:]) > max(waits[:3])


class TestTheLease:
    async def test_a_worker_frozen_past_its_lease_sends_nothing(self) -> None:
        bench = Bench(queue=(queue := SlowQueue()))
        queue.clock = bench.clock

        async with working(bench):
            delivery = bench.plan()
            stored = await bench.until(delivery, State.PENDING)
            while_unsure = bench.texts
            bench.advance(60)
            await bench.until(delivery, State.SENT, attempts=2)

        assert while_unsure == []
        assert bench.texts == ["ada signed up"]
        assert not stored.maybe_repeated

    async def test_a_worker_that_lost_its_claim_sends_nothing(self) -> None:
        bench = Bench(queue=(queue := StolenQueue()))
        delivery = await bench.abandoned()

        async with working(bench):
            await eventually(lambda: queue.stolen)

        assert bench.texts == []
        assert bench.stored(delivery).state is State.SENDING


class SlowQueue(InMemoryDeliveries):
    """Lets the whole lease pass during the first claim."""

    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False

    async def claim(
        self, now: datetime, *, lease_until: datetime, reclaim_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        claimed = await super().claim(
            now, lease_until=lease_until, reclaim_at=reclaim_at, limit=limit
        )
        if claimed and not self.frozen:
            self.frozen = True
            self.clock.advance(timedelta(seconds=TIMEOUTS.lease_s))
        return claimed


class StolenQueue(InMemoryDeliveries):
    """Lets another worker claim the delivery after the search."""

    stolen = False

    async def will_repeat(
        self, claimed: ClaimedDelivery, now: datetime, *, reclaim_at: datetime
    ) -> bool:
        self.stored[claimed.id].attempts += 1
        self.stolen = True
        return await super().will_repeat(claimed, now, reclaim_at=reclaim_at)


class CountingRestarts(InMemoryDeliveries):
    def __init__(self) -> None:
        super().__init__()
        self.claims = self.restarts = 0

    async def claim(self, *arguments: Any, **options: Any) -> Sequence[ClaimedDelivery]:
        self.claims += 1
        return await super().claim(*arguments, **options)

    async def restart_waits(self, now: datetime) -> None:
        self.restarts += 1


class TestAPollThatFindsNothing:
    async def test_looks_for_a_clock_that_was_set_back_not_every_time(self) -> None:
        queue = CountingRestarts()

        async with working(Bench(queue=queue)):
            await eventually(lambda: queue.claims >= 3)

        assert queue.restarts == 1


class TestWhenTheClockIsSetBack:
    async def test_a_wait_does_not_get_longer(self) -> None:
        bench = Bench()
        bench.chat.fail_next_post(Unreachable("unreachable"))
        delivery = bench.plan()
        bench.clock.advance(timedelta(seconds=-3600))

        async with working(bench):
            await bench.until(delivery, State.PENDING)
            bench.advance(-3600)
            await eventually(lambda: bench.stored(delivery).updated_at == bench.clock())
            bench.advance(60)
            await bench.until(delivery, State.SENT, attempts=2)

        assert bench.texts == ["ada signed up"]


class TestWhenTheDatabaseIsUnreachable:
    async def test_the_worker_reports_it_and_continues_afterwards(self) -> None:
        bench = Bench(queue=(queue := UnreachableQueue()))

        async with working(bench):
            await eventually(lambda: bench.worker.trouble() is not None)
            trouble = bench.worker.trouble()
            queue.unreachable = False
            delivery = bench.plan()
            await bench.until(delivery, State.SENT)

        assert trouble == "the database: ConnectionError"
        assert bench.worker.trouble() is None

    async def test_a_message_that_could_not_be_marked_is_found_later(self) -> None:
        bench = Bench(queue=(queue := FailingMarkQueue()))

        async with working(bench):
            delivery = bench.plan()
            await eventually(lambda: queue.failed_once)
            bench.advance(TIMEOUTS.lease_s + TIMEOUTS.settle_s)
            stored = await bench.until(delivery, State.SENT, attempts=2)

        assert bench.texts == ["ada signed up"]
        assert not stored.maybe_repeated


class UnreachableQueue(InMemoryDeliveries):
    unreachable = True

    async def claim(
        self, now: datetime, *, lease_until: datetime, reclaim_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        if self.unreachable:
            raise ConnectionError
        return await super().claim(now, lease_until=lease_until, reclaim_at=reclaim_at, limit=limit)


class FailingMarkQueue(InMemoryDeliveries):
    """Fails when the first message is to be marked as sent."""

    failed_once = False

    async def sent(self, claimed: ClaimedDelivery, message_id: str, now: datetime) -> bool:
        if not self.failed_once:
            self.failed_once = True
            raise ConnectionError
        return await super().sent(claimed, message_id, now)


class TestTheCorrelation:
    async def test_the_span_belongs_to_the_trace_of_the_event(
        self, spans: InMemorySpanExporter
    ) -> None:
        trace_id, parent_id = "a" * 32, "b" * 16

        async with working(Bench()) as bench:
            delivery = bench.plan(traceparent=f"00-{trace_id}-{parent_id}-01")
            await bench.until(delivery, State.SENT)

        (sent,) = [
            each
            for each in spans.get_finished_spans()
            if each.name == "deliver slack-growth-user-signed-up"
            and each.context is not None
            and f"{each.context.trace_id:032x}" == trace_id
        ]
        assert sent.parent is not None
        assert f"{sent.parent.span_id:016x}" == parent_id

    async def test_the_logs_have_the_correlation_of_the_event_and_no_name(
        self, logged: Logged
    ) -> None:
        bench = Bench(chat := CorrelationChat())

        async with working(bench):
            delivery = bench.plan()
            await bench.until(delivery, State.SENT)

        assert chat.correlations == [("c-1", str(delivery.event_id))]
        assert "ada" not in str(logged)
        assert any(line.get("delivery_id") == str(delivery.id) for line in logged)


class CorrelationChat(InMemoryChat):
    def __init__(self) -> None:
        super().__init__()
        self.correlations: list[tuple[str, str | None]] = []

    async def post(self, message: Message) -> str:
        self.correlations.append(
            (current_correlation().correlation_id, current_correlation().causation_id)
        )
        return await super().post(message)
