"""A component repeats its step until it is stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chassis.periodic import LONGEST_IDLE_S, SHORTEST_IDLE_S, Periodic, Polling


class Steps(Periodic):
    name = "steps"

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.taken = 0
        self.third = asyncio.Event()
        self._pause_s = pause_s

    async def step(self) -> float:
        self.taken += 1
        if self.taken == 3:
            self.third.set()
        return self._pause_s


async def test_runs_its_step_again_after_each_pause() -> None:
    steps = Steps(0.001)
    running = asyncio.create_task(steps.run())

    async with asyncio.timeout(30):
        await steps.third.wait()
        await steps.stop()
        await running


async def test_a_stop_ends_a_long_pause_at_once() -> None:
    steps = Steps(3_600)
    running = asyncio.create_task(steps.run())
    await asyncio.sleep(0)

    await steps.stop()

    async with asyncio.timeout(30):
        await running
    assert steps.taken == 1


async def test_a_step_that_raises_ends_it() -> None:
    class Broken(Steps):
        async def step(self) -> float:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Broken(0).run()


class Looks(Polling):
    name = "looks"

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0
        self.ended = False
        self.looked = asyncio.Event()
        self.stopped = asyncio.Event()

    async def step(self, idle_s: float) -> float:
        self.taken += 1
        self._begun.add(asyncio.create_task(self._work()))
        self.looked.set()
        return 3_600

    async def _work(self) -> None:
        await self.stopped.wait()
        self.ended = True

    async def stop(self) -> None:
        await super().stop()
        self.stopped.set()


@asynccontextmanager
async def running_and_woken(looks: Looks) -> AsyncIterator[None]:
    """Run it for the block, which begins when it has looked a second time, since it was woken."""
    running = asyncio.create_task(looks.run())
    async with asyncio.timeout(30):
        await looks.looked.wait()
        looks.looked.clear()
        looks.wake()
        await looks.looked.wait()
        yield
        await looks.stop()
        await running


async def test_a_poll_is_at_once_when_it_is_woken_and_ends_what_it_has_begun() -> None:
    looks = Looks()
    async with running_and_woken(looks):
        assert not looks.ended

    assert (looks.taken, looks.ended) == (2, True)


def test_a_poll_that_finds_nothing_is_followed_by_longer_and_longer_pauses() -> None:
    looks = Looks()
    first = looks.next_idle_s(3, found=True)

    assert looks.next_idle_s(first, found=False) == 2 * first
    assert looks.next_idle_s(60, found=False) == LONGEST_IDLE_S


async def test_a_poll_that_finds_what_it_was_woken_for_is_not_repeated_soon() -> None:
    pauses_s: list[float] = []

    class Finds(Looks):
        async def step(self, idle_s: float) -> float:
            pauses_s.append(self.next_idle_s(idle_s, found=True))
            return await super().step(idle_s)

    async with running_and_woken(Finds()):
        pass

    assert pauses_s == [SHORTEST_IDLE_S, LONGEST_IDLE_S]
