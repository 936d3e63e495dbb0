"""Who goes at once, who goes with whom, and what becomes of those who were taken along."""

import asyncio
from typing import Any

import pytest

from chassis.handling import Chunk, Handling
from chassis.lanes import Lanes, LeftAlone, Waiting

ONE, OTHER = "users.user", "accounts.account"


def waiting(group: str = ONE, events: int = 1) -> Waiting:
    records: Any = [None] * events
    feed: Any = None
    return Waiting(group, Handling(Chunk(group, 0, 0, events, 1, records), feed))


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


async def begun(lanes: Lanes, *chunks: Waiting) -> list["asyncio.Task[bool]"]:
    """Let chunks ask for their turn, one after the other."""
    tasks = [asyncio.create_task(lanes.turn(each)) for each in chunks]
    await asyncio.sleep(0)
    return tasks


class TestALaneThatIsFree:
    async def test_is_had_at_once(self, lanes: Lanes) -> None:
        assert await lanes.turn(waiting())

    async def test_is_had_by_one(self, lanes: Lanes) -> None:
        first, second = await begun(lanes, waiting(), waiting())

        assert first.done()
        assert not second.done()
        second.cancel()

    async def test_again_goes_to_the_next_that_waits(self, lanes: Lanes) -> None:
        await lanes.turn(waiting())
        second, third = await begun(lanes, waiting(), waiting(OTHER))

        lanes.free()

        assert await second
        assert not third.done()
        third.cancel()


class TestCompany:
    async def test_is_what_waits_of_the_same_group_in_its_order(self, lanes: Lanes) -> None:
        leader, first, other, second = waiting(), waiting(), waiting(OTHER), waiting()
        await begun(lanes, leader, first, other, second)

        assert lanes.company(leader, most_events=500) == [first, second]

    async def test_is_no_larger_than_a_chunk_may_be(self, lanes: Lanes) -> None:
        leader, large, small = waiting(events=300), waiting(events=250), waiting(events=200)
        await begun(lanes, leader, large, small)

        assert lanes.company(leader, most_events=500) == [small]

    async def test_that_went_is_done_and_needs_no_lane(self, lanes: Lanes) -> None:
        leader, taken = waiting(), waiting()
        _, turn = await begun(lanes, leader, taken)
        lanes.company(leader, most_events=500)

        taken.went()
        lanes.free()

        assert not await turn
        assert await lanes.turn(waiting())

    async def test_that_was_left_alone_is_told_so(self, lanes: Lanes) -> None:
        leader, taken = waiting(), waiting()
        _, turn = await begun(lanes, leader, taken)
        lanes.company(leader, most_events=500)

        taken.leave_alone()

        with pytest.raises(LeftAlone):
            await turn


class TestOneThatIsCancelled:
    async def test_while_it_waits_is_nobodys_company(self, lanes: Lanes) -> None:
        leader, gone = waiting(), waiting()
        _, turn = await begun(lanes, leader, gone)

        turn.cancel()
        await asyncio.wait([turn])

        assert lanes.company(leader, most_events=500) == []

    async def test_and_does_not_know_it_yet_is_passed_over(self, lanes: Lanes) -> None:
        _, second, third = await begun(lanes, waiting(), waiting(), waiting())

        second.cancel()
        lanes.free()

        assert await third

    async def test_as_the_last_that_waits_leaves_the_lane_free(self, lanes: Lanes) -> None:
        _, second = await begun(lanes, waiting(), waiting())

        second.cancel()
        lanes.free()

        assert await lanes.turn(waiting())

    async def test_as_it_is_given_the_lane_gives_it_on(self, lanes: Lanes) -> None:
        _, second, third = await begun(lanes, waiting(), waiting(), waiting())

        lanes.free()
        second.cancel()

        assert await third

    async def test_after_it_was_taken_along_harms_nobody(self, lanes: Lanes) -> None:
        leader, taken = waiting(), waiting()
        _, turn = await begun(lanes, leader, taken)
        lanes.company(leader, most_events=500)
        turn.cancel()
        await asyncio.wait([turn])

        taken.went()
        lanes.free()

        assert await lanes.turn(waiting())


class TestLargeOnes:
    async def test_go_two_at_a_time_and_leave_the_lane_to_the_small(self, lanes: Lanes) -> None:
        at_work: list[int] = []
        go_on = asyncio.Event()

        async def handle(number: int) -> None:
            async with lanes.large:
                at_work.append(number)
                await go_on.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(handle(number))
            small = await lanes.turn(waiting())
            await asyncio.sleep(0)
            first = list(at_work)
            go_on.set()

        assert small
        assert first == [0, 1]
        assert at_work == [0, 1, 2]
