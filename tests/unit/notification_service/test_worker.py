import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.correlation import current_correlation
from notification_service.chat import Message, OutcomeUnknown, RateLimited, Refused, Unreachable
from notification_service.deliveries import ClaimedDelivery, PlannedDelivery, State
from notification_service.in_memory import InMemoryChat, InMemoryDeliveries, Kept
from notification_service.worker import DeliveryWorker, Patience

from .making import NOW, Clock, after, planned

PATIENCE = Patience(call=10, lease=15, settle=3, longest_retry=60)
Logged = Sequence[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the fakes offer no event
            await asyncio.sleep(0.002)


class Desk:
    """A worker at its desk: a queue, a chat, a clock, all of them fakes."""

    def __init__(
        self,
        chat: InMemoryChat | None = None,
        queue: InMemoryDeliveries | None = None,
        *,
        concurrency: int = 4,
    ) -> None:
        self.clock = Clock()
        self.chat = chat or InMemoryChat()
        # The fake chat tells the real time, and this clock the one of the deliveries.
        self.clock.at = datetime.now(NOW.tzinfo)
        self.began = self.clock.at
        self.queue = queue or InMemoryDeliveries()
        self.worker = DeliveryWorker(
            self.queue, self.chat, self.clock, PATIENCE, concurrency=concurrency
        )

    def plan(self, **changes: Any) -> PlannedDelivery:
        delivery = planned(**{"created_at": self.clock()} | changes)
        self.queue.plan(delivery)
        self.worker.wake()
        return delivery

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.worker.wake()

    def kept(self, delivery: PlannedDelivery) -> Kept:
        return self.queue.kept[delivery.id]

    async def until(self, delivery: PlannedDelivery, state: State, attempts: int = 1) -> Kept:
        it = self.kept(delivery)
        await eventually(lambda: (it.state, it.attempts) == (state, attempts))
        return it

    async def abandoned(self) -> PlannedDelivery:
        """Plan a delivery that a worker claimed, and say no more of it."""
        delivery = self.plan()
        await self.queue.claim(self.clock(), lease_until=after(0), take_up_at=self.clock(), limit=1)
        return delivery

    @property
    def texts(self) -> list[str]:
        return [message.text for _, message in self.chat.messages]


@asynccontextmanager
async def at_work(desk: Desk) -> AsyncIterator[Desk]:
    running = asyncio.create_task(desk.worker.run())
    try:
        yield desk
    finally:
        await desk.worker.stop()
        async with asyncio.timeout(5):
            await running


class TestSending:
    async def test_what_is_due_is_sent_and_marked(self) -> None:
        async with at_work(Desk()) as desk:
            delivery = desk.plan()
            kept = await desk.until(delivery, State.SENT)

        ((message_id, message),) = desk.chat.messages
        assert message == Message("growth", "ada signed up", delivery.id, "c-1")
        assert (kept.message_id, kept.sent_at) == (message_id, desk.began)
        assert not kept.maybe_repeated

    async def test_no_more_at_once_than_allowed(self) -> None:
        chat = SlowChat()
        async with at_work(Desk(chat, concurrency=2)) as desk:
            deliveries = [desk.plan() for _ in range(5)]
            await eventually(lambda: chat.waiting == 2)
            claimed = [each for each in deliveries if desk.kept(each).state is State.SENDING]
            chat.answer.set()
            for each in deliveries:
                await desk.until(each, State.SENT)

        assert len(claimed) == 2
        assert chat.most_waiting == 2

    async def test_a_stop_waits_for_what_was_begun_and_begins_no_more(self) -> None:
        desk = Desk(chat := SlowChat(), concurrency=1)
        begun, waiting = desk.plan(created_at=after(-9)), desk.plan()
        running = asyncio.create_task(desk.worker.run())
        await eventually(lambda: chat.waiting == 1)

        await desk.worker.stop()
        done, _ = await asyncio.wait({running}, timeout=0.2)
        chat.answer.set()
        async with asyncio.timeout(5):
            await running

        assert not done
        assert desk.kept(begun).state is State.SENT
        assert desk.kept(waiting).state is State.PENDING


class SlowChat(InMemoryChat):
    """Answers when it is told to."""

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


class TestLeftBehind:
    async def test_one_that_arrived_is_found_and_not_sent_again(self) -> None:
        desk = Desk()
        delivery = await desk.abandoned()
        message_id = await desk.chat.post(Message("growth", "ada signed up", delivery.id, "c-1"))

        async with at_work(desk):
            kept = await desk.until(delivery, State.SENT, attempts=2)

        assert desk.texts == ["ada signed up"]
        assert (kept.message_id, kept.maybe_repeated) == (message_id, False)

    async def test_one_that_is_not_found_is_sent_again_and_marked_before(self) -> None:
        desk = Desk(chat := MarkedFirst())
        delivery = await desk.abandoned()
        chat.kept = desk.kept(delivery)

        async with at_work(desk):
            kept = await desk.until(delivery, State.SENT, attempts=2)

        assert desk.texts == ["ada signed up"]
        assert kept.maybe_repeated
        assert chat.was_marked == [True]

    async def test_where_nobody_can_look_nothing_is_sent(self) -> None:
        desk = Desk()
        delivery = await desk.abandoned()
        desk.chat.fail_next_look(OutcomeUnknown("http_500"))

        async with at_work(desk):
            kept = await desk.until(delivery, State.PENDING, attempts=2)

        assert desk.texts == []
        assert (kept.last_error, kept.unsure_since) == ("http_500", desk.began)


class MarkedFirst(InMemoryChat):
    """Notes at each post whether the delivery was marked by then."""

    kept: Kept

    def __init__(self) -> None:
        super().__init__()
        self.was_marked: list[bool] = []

    async def post(self, message: Message) -> str:
        self.was_marked.append(self.kept.maybe_repeated)
        return await super().post(message)


class TestWhenTheChatFails:
    async def test_a_time_out_after_the_post_is_looked_up_and_not_repeated(self) -> None:
        desk = Desk()
        desk.chat.fail_next_post(OutcomeUnknown("timeout"), posted=True)

        async with at_work(desk):
            delivery = desk.plan()
            kept = await desk.until(delivery, State.PENDING)
            settled_at = kept.next_attempt_at
            desk.advance(60)
            await desk.until(delivery, State.SENT, attempts=2)

        assert settled_at is not None
        assert (settled_at - desk.began).total_seconds() >= PATIENCE.settle
        assert desk.texts == ["ada signed up"]
        assert not kept.maybe_repeated

    async def test_a_server_error_is_looked_up_and_then_repeated(self) -> None:
        desk = Desk()
        desk.chat.fail_next_post(OutcomeUnknown("http_500"))

        async with at_work(desk):
            delivery = desk.plan()
            await desk.until(delivery, State.PENDING)
            desk.advance(60)
            kept = await desk.until(delivery, State.SENT, attempts=2)

        assert desk.texts == ["ada signed up"]
        assert kept.maybe_repeated

    async def test_a_limit_is_kept_for_the_whole_address(self) -> None:
        desk = Desk()
        desk.chat.fail_next_post(RateLimited(30))

        async with at_work(desk):
            first = desk.plan()
            kept = await desk.until(first, State.PENDING)
            second = desk.plan(text="bob signed up")
            elsewhere = desk.plan(address="nowhere")
            await desk.until(elsewhere, State.FAILED)
            desk.advance(29)
            third = desk.plan(address="nowhere")
            await desk.until(third, State.FAILED)
            while_paused = (desk.texts, desk.kept(second).attempts, kept.attempts)
            desk.advance(1)
            await desk.until(first, State.SENT, attempts=2)
            await desk.until(second, State.SENT, attempts=1)

        assert while_paused == ([], 0, 1)
        assert sorted(desk.texts) == ["ada signed up", "bob signed up"]

    @pytest.mark.parametrize("error", [RateLimited(1), Unreachable("unreachable")])
    async def test_what_surely_did_not_arrive_is_not_looked_for(
        self, error: RateLimited | Unreachable
    ) -> None:
        desk = Desk()
        desk.chat.fail_next_post(error)
        desk.chat.fail_next_look(Refused("nobody should look"))

        async with at_work(desk):
            delivery = desk.plan()
            await desk.until(delivery, State.PENDING)
            desk.advance(60)
            kept = await desk.until(delivery, State.SENT, attempts=2)

        assert not kept.maybe_repeated

    async def test_a_refusal_is_final_and_told(self) -> None:
        desk = Desk()
        desk.chat.fail_next_post(Refused("token_revoked"))

        async with at_work(desk):
            delivery = desk.plan()
            kept = await desk.until(delivery, State.FAILED)
            trouble = desk.worker.trouble()
            desk.advance(3600)
            other = desk.plan()
            await desk.until(other, State.SENT)

        assert (kept.last_error, kept.attempts) == ("token_revoked", 1)
        assert trouble == "the chat: token_revoked"
        assert desk.worker.trouble() is None

    async def test_the_wait_between_tries_has_a_bound(self) -> None:
        desk = Desk()
        waits = []

        async with at_work(desk):
            for _ in range(40):
                desk.chat.fail_next_post(Unreachable("unreachable"))
            delivery = desk.plan()
            for attempt in range(1, 41):
                kept = await desk.until(delivery, State.PENDING, attempts=attempt)
                assert kept.next_attempt_at is not None
                waits.append((kept.next_attempt_at - desk.clock()).total_seconds())
                desk.advance(PATIENCE.longest_retry)

        assert max(waits) <= PATIENCE.longest_retry
        assert max(waits[-20:]) > max(waits[:3])


class TestTheLease:
    async def test_a_worker_frozen_past_its_lease_sends_nothing(self) -> None:
        desk = Desk(queue=(queue := FreezingQueue()))
        queue.clock = desk.clock

        async with at_work(desk):
            delivery = desk.plan()
            kept = await desk.until(delivery, State.PENDING)
            while_unsure = desk.texts
            desk.advance(60)
            await desk.until(delivery, State.SENT, attempts=2)

        assert while_unsure == []
        assert desk.texts == ["ada signed up"]
        assert not kept.maybe_repeated

    async def test_who_lost_the_claim_sends_nothing(self) -> None:
        desk = Desk(queue=(queue := StolenQueue()))
        delivery = await desk.abandoned()

        async with at_work(desk):
            await eventually(lambda: queue.stolen)

        assert desk.texts == []
        assert desk.kept(delivery).state is State.SENDING


class FreezingQueue(InMemoryDeliveries):
    """Freezes who claims for the first time, for as long as the lease lasts."""

    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False

    async def claim(
        self, now: datetime, *, lease_until: datetime, take_up_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        claimed = await super().claim(
            now, lease_until=lease_until, take_up_at=take_up_at, limit=limit
        )
        if claimed and not self.frozen:
            self.frozen = True
            self.clock.advance(PATIENCE.lease)
        return claimed


class StolenQueue(InMemoryDeliveries):
    """Gives what was claimed to somebody else as soon as it was looked for."""

    stolen = False

    async def will_repeat(
        self, claimed: ClaimedDelivery, now: datetime, *, take_up_at: datetime
    ) -> bool:
        self.kept[claimed.id].attempts += 1
        self.stolen = True
        return await super().will_repeat(claimed, now, take_up_at=take_up_at)


class TestWhenTheClockIsSetBack:
    async def test_nothing_waits_for_the_hour_to_come_again(self) -> None:
        desk = Desk()
        desk.chat.fail_next_post(Unreachable("unreachable"))
        delivery = desk.plan()
        desk.clock.advance(-3600)

        async with at_work(desk):
            await desk.until(delivery, State.PENDING)
            desk.advance(-3600)
            await eventually(lambda: desk.kept(delivery).updated_at == desk.clock())
            desk.advance(60)
            await desk.until(delivery, State.SENT, attempts=2)

        assert desk.texts == ["ada signed up"]


class TestWhenTheDatabaseIsAway:
    async def test_it_says_so_and_goes_on_when_it_is_back(self) -> None:
        desk = Desk(queue=(queue := AwayQueue()))

        async with at_work(desk):
            await eventually(lambda: desk.worker.trouble() is not None)
            trouble = desk.worker.trouble()
            queue.away = False
            delivery = desk.plan()
            await desk.until(delivery, State.SENT)

        assert trouble == "the database: ConnectionError"
        assert desk.worker.trouble() is None

    async def test_a_message_that_could_not_be_marked_is_found_later(self) -> None:
        desk = Desk(queue=(queue := ForgetfulQueue()))

        async with at_work(desk):
            delivery = desk.plan()
            await eventually(lambda: queue.forgot)
            desk.advance(PATIENCE.lease + PATIENCE.settle)
            kept = await desk.until(delivery, State.SENT, attempts=2)

        assert desk.texts == ["ada signed up"]
        assert not kept.maybe_repeated


class AwayQueue(InMemoryDeliveries):
    away = True

    async def claim(
        self, now: datetime, *, lease_until: datetime, take_up_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        if self.away:
            raise ConnectionError
        return await super().claim(now, lease_until=lease_until, take_up_at=take_up_at, limit=limit)


class ForgetfulQueue(InMemoryDeliveries):
    """Is away when the first message is to be marked as sent."""

    forgot = False

    async def sent(self, claimed: ClaimedDelivery, message_id: str, now: datetime) -> bool:
        if not self.forgot:
            self.forgot = True
            raise ConnectionError
        return await super().sent(claimed, message_id, now)


class TestTheTrail:
    async def test_sending_goes_on_in_the_journeys_trace(self, spans: InMemorySpanExporter) -> None:
        trace_id, parent_id = "a" * 32, "b" * 16

        async with at_work(Desk()) as desk:
            delivery = desk.plan(traceparent=f"00-{trace_id}-{parent_id}-01")
            await desk.until(delivery, State.SENT)

        (sent,) = [
            each
            for each in spans.get_finished_spans()
            if each.name == "deliver slack-growth-user-signed-up"
            and each.context is not None
            and f"{each.context.trace_id:032x}" == trace_id
        ]
        assert sent.parent is not None
        assert f"{sent.parent.span_id:016x}" == parent_id

    async def test_it_is_on_the_journeys_trail_and_logs_nobodys_name(self, logged: Logged) -> None:
        desk = Desk(chat := TrailChat())

        async with at_work(desk):
            delivery = desk.plan()
            await desk.until(delivery, State.SENT)

        assert chat.trails == [("c-1", str(delivery.event_id))]
        assert "ada" not in str(logged)
        assert any(line.get("delivery_id") == str(delivery.id) for line in logged)


class TrailChat(InMemoryChat):
    def __init__(self) -> None:
        super().__init__()
        self.trails: list[tuple[str, str | None]] = []

    async def post(self, message: Message) -> str:
        self.trails.append(
            (current_correlation().correlation_id, current_correlation().causation_id)
        )
        return await super().post(message)
