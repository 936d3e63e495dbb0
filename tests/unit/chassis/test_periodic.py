"""A component repeats its step until it is stopped."""

import asyncio

import pytest

from chassis.periodic import Periodic


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

    async with asyncio.timeout(10):
        await steps.third.wait()
        await steps.stop()
        await running


async def test_a_stop_ends_a_long_pause_at_once() -> None:
    steps = Steps(3_600)
    running = asyncio.create_task(steps.run())
    await asyncio.sleep(0)

    await steps.stop()

    async with asyncio.timeout(10):
        await running
    assert steps.taken == 1


async def test_a_step_that_raises_ends_it() -> None:
    class Broken(Steps):
        async def step(self) -> float:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Broken(0).run()
