"""The promises of a queue of deliveries; the suite runs on the fake and on PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import pytest

from chassis.correlation import new_id
from notification_service.deliveries import (
    ClaimedDelivery,
    DeliveryQueue,
    PlannedDelivery,
    State,
)

from .making import NOW, after, planned


@dataclass(frozen=True)
class Seen:
    """The stored state of a delivery."""

    state: State
    attempts: int
    next_attempt_at: datetime | None = None
    unsure_since: datetime | None = None
    maybe_repeated: bool = False
    last_error: str | None = None
    message_id: str | None = None
    sent_at: datetime | None = None


class Bench(Protocol):
    """A queue; deliveries can be planned, and their stored state read."""

    @property
    def queue(self) -> DeliveryQueue: ...
    async def plan(self, *deliveries: PlannedDelivery) -> None: ...
    async def see(self, id_: UUID) -> Seen: ...


async def claim(
    bench: Bench, at: datetime = NOW, *, limit: int = 10, lease_s: float = 15, settle_s: float = 3
) -> Sequence[ClaimedDelivery]:
    lease_until = at + timedelta(seconds=lease_s)
    reclaim_at = lease_until + timedelta(seconds=settle_s)
    return await bench.queue.claim(at, lease_until=lease_until, reclaim_at=reclaim_at, limit=limit)


async def claim_one(bench: Bench, at: datetime = NOW) -> ClaimedDelivery:
    (claimed,) = await claim(bench, at)
    return claimed


class DeliveryQueueSuite:
    async def test_a_planned_delivery_is_claimed_once(self, bench: Bench) -> None:
        delivery = planned(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        await bench.plan(delivery)

        claimed = await claim_one(bench)
        again = await claim(bench)

        assert again == []
        assert claimed == ClaimedDelivery(
            id=delivery.id,
            rule=delivery.rule,
            event_id=delivery.event_id,
            address="growth",
            text="ada signed up",
            correlation_id="c-1",
            traceparent=delivery.traceparent,
            created_at=NOW,
            attempt=1,
            lease_until=after(15),
            unsure_since=None,
        )

    async def test_there_is_one_delivery_for_each_event_and_rule(self, bench: Bench) -> None:
        event_id = new_id()
        await bench.plan(planned(event_id=event_id), planned(event_id=event_id, rule="another"))
        await bench.plan(planned(event_id=event_id))

        claimed = await claim(bench)

        assert sorted(each.rule for each in claimed) == ["another", "slack-growth-user-signed-up"]

    async def test_the_longest_due_are_claimed_first_up_to_the_limit(self, bench: Bench) -> None:
        late, early, later = planned(created_at=after(-1)), planned(created_at=after(-2)), planned()
        await bench.plan(late, early, later)

        claimed = await claim(bench, limit=2)

        assert {each.id for each in claimed} == {early.id, late.id}

    async def test_a_delivery_that_is_not_due_is_not_claimed(self, bench: Bench) -> None:
        await bench.plan(planned(created_at=after(1)))

        assert await claim(bench, NOW) == []
        assert len(await claim(bench, after(1))) == 1

    async def test_a_claimed_delivery_that_is_not_marked_is_claimed_again_as_unsure(
        self, bench: Bench
    ) -> None:
        await bench.plan(planned())
        await claim_one(bench)

        too_early = await claim(bench, after(17.9))
        second = await claim_one(bench, after(18))
        third = await claim_one(bench, after(60))

        assert too_early == []
        assert (second.attempt, second.unsure_since) == (2, NOW)
        assert (third.attempt, third.unsure_since) == (3, NOW)

    async def test_a_sent_delivery_is_not_claimed_again(self, bench: Bench) -> None:
        await bench.plan(planned())
        claimed = await claim_one(bench)

        held = await bench.queue.sent(claimed, "17.000001", after(1))

        assert held
        assert await bench.see(claimed.id) == Seen(
            State.SENT, attempts=1, message_id="17.000001", sent_at=after(1)
        )
        assert await claim(bench, after(100)) == []

    async def test_a_failed_delivery_keeps_its_error_and_is_not_claimed_again(
        self, bench: Bench
    ) -> None:
        await bench.plan(planned())
        claimed = await claim_one(bench)

        held = await bench.queue.failed(claimed, "channel_not_found", after(1))

        assert held
        assert await bench.see(claimed.id) == Seen(
            State.FAILED, attempts=1, last_error="channel_not_found"
        )
        assert await claim(bench, after(100)) == []

    async def test_a_delivery_that_did_not_arrive_is_claimed_again_as_sure(
        self, bench: Bench
    ) -> None:
        await bench.plan(planned())
        claimed = await claim_one(bench)

        await bench.queue.put_back(claimed, "unreachable", after(1), at=after(5), unsure=False)
        early = await claim(bench, after(4.9))
        seen = await bench.see(claimed.id)
        again = await claim_one(bench, after(5))

        assert early == []
        assert (seen.state, seen.last_error) == (State.PENDING, "unreachable")
        assert (again.attempt, again.unsure_since) == (2, None)

    async def test_unsure_since_is_the_first_attempt_that_may_have_arrived(
        self, bench: Bench
    ) -> None:
        await bench.plan(planned())
        first = await claim_one(bench, after(0))
        await bench.queue.put_back(first, "timeout", after(1), at=after(10), unsure=True)
        second = await claim_one(bench, after(10))
        await bench.queue.put_back(second, "timeout", after(11), at=after(20), unsure=True)
        third = await claim_one(bench, after(20))
        await bench.queue.put_back(third, "rate_limited", after(21), at=after(30), unsure=False)
        fourth = await claim_one(bench, after(30))

        assert [each.unsure_since for each in (first, second, third, fourth)] == [
            None,
            NOW,
            NOW,
            NOW,
        ]

    async def test_a_delivery_that_may_arrive_twice_is_marked_and_its_claim_extended(
        self, bench: Bench
    ) -> None:
        await bench.plan(planned())
        claimed = await claim_one(bench)

        held = await bench.queue.will_repeat(claimed, after(1), reclaim_at=after(40))

        assert held
        assert (await bench.see(claimed.id)).maybe_repeated
        assert await claim(bench, after(39.9)) == []
        assert len(await claim(bench, after(40))) == 1

    @pytest.mark.parametrize("mark", ["sent", "failed", "put_back", "will_repeat"])
    async def test_a_worker_that_lost_its_claim_changes_nothing(
        self, bench: Bench, mark: str
    ) -> None:
        await bench.plan(planned())
        lost = await claim_one(bench)
        await claim_one(bench, after(30))
        before = await bench.see(lost.id)
        queue = bench.queue

        match mark:
            case "sent":
                held = await queue.sent(lost, "1.0", after(31))
            case "failed":
                held = await queue.failed(lost, "invalid_auth", after(31))
            case "put_back":
                held = await queue.put_back(lost, "x", after(31), at=after(31), unsure=False)
            case _:
                held = await queue.will_repeat(lost, after(31), reclaim_at=after(31))

        assert not held
        assert await bench.see(lost.id) == before

    async def test_a_sent_delivery_cannot_be_marked_as_failed(self, bench: Bench) -> None:
        await bench.plan(planned())
        claimed = await claim_one(bench)
        await bench.queue.sent(claimed, "1.0", after(1))

        held = await bench.queue.failed(claimed, "invalid_auth", after(2))

        assert not held
        assert (await bench.see(claimed.id)).state is State.SENT

    async def test_nothing_is_claimed_for_a_paused_address(self, bench: Bench) -> None:
        growth, other = planned(), planned(address="other")
        await bench.plan(growth, other)

        await bench.queue.pause("growth", NOW, until=after(30))

        assert [each.id for each in await claim(bench, after(1))] == [other.id]
        assert [each.id for each in await claim(bench, after(30))][:1] == [growth.id]

    async def test_the_longer_of_two_pauses_counts(self, bench: Bench) -> None:
        await bench.plan(planned())

        await bench.queue.pause("growth", NOW, until=after(30))
        await bench.queue.pause("growth", after(1), until=after(5))

        assert await claim(bench, after(29)) == []
        assert len(await claim(bench, after(30))) == 1

    async def test_a_pause_ends_when_the_clock_is_set_back(self, bench: Bench) -> None:
        await bench.plan(planned(created_at=after(-7200)))

        await bench.queue.pause("growth", NOW, until=after(30))

        assert len(await claim(bench, after(-3600))) == 1

    async def test_waits_are_restarted_after_the_clock_was_set_back(self, bench: Bench) -> None:
        pending, held = planned(), planned()
        await bench.plan(held)
        await claim_one(bench)
        await bench.plan(pending)
        hour_before = after(-3600)

        stuck = await claim(bench, hour_before)
        await bench.queue.restart_waits(hour_before)
        at_once = await claim(bench, hour_before)
        early = await claim(bench, after(-3600 + 17))
        after_the_lease = await claim(bench, after(-3600 + 18))

        assert stuck == []
        assert [each.id for each in at_once] == [pending.id]
        assert early == []
        assert {each.id for each in after_the_lease} == {held.id, pending.id}

    async def test_waits_that_began_before_now_are_not_restarted(self, bench: Bench) -> None:
        await bench.plan(planned())
        await claim_one(bench)

        await bench.queue.restart_waits(after(10))

        assert len(await claim(bench, after(18))) == 1
