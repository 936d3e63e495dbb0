"""Each process is killed at every failpoint that it passes; then nothing is lost."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Final

import pytest

from tests.e2e.people import poll
from tests.faults.harness import System
from tests.faults.points import failpoints
from tests.faults.stimuli import STIMULI, Reached, Stimulus

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("crash-matrix")]

_WITHIN_S: Final = 60.0
_AGAIN_AFTER_S: Final = 3.0


@pytest.fixture(scope="module")
def reached(system: System) -> Reached:
    """Which services pass which points; tried out before any process is killed."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, explore(system)).result()


async def explore(system: System) -> Reached:
    """Apply one stimulus after the other, and record which points are passed."""
    found: dict[str, dict[str, list[Stimulus]]] = {}
    # Enough that what happens once in each partition is done.
    await system.workload.sign_up(100)
    await system.assert_nothing_is_lost()
    for stimulus in STIMULI:
        system.failpoints.disarm()
        for point in failpoints():
            for service in system.services:
                # The hit is recorded, and nothing else happens.
                system.failpoints.arm(point, "delay 0", service=service)
        await stimulus.do(system)
        await system.assert_nothing_is_lost()
        for point in failpoints():
            for service in system.services:
                if system.failpoints.was_hit(point, service=service):
                    found.setdefault(point, {}).setdefault(service, []).append(stimulus)
    system.failpoints.disarm()
    return found


async def bring_to(system: System, point: str, stimuli: Mapping[str, Sequence[Stimulus]]) -> None:
    """Stimulate the system until every service named has hit the point."""
    deadline = time.monotonic() + _WITHIN_S
    left = set(stimuli)

    async def are_hit() -> bool:
        left.difference_update(
            [each for each in left if system.failpoints.was_hit(point, service=each)]
        )
        return not left

    for turn in count():
        assert time.monotonic() < deadline, f"{point} was not hit by {sorted(left)} any more"
        for stimulus in {stimuli[each][turn % len(stimuli[each])] for each in left}:
            await stimulus.do(system)
        with suppress(AssertionError):
            await poll(are_hit, within_s=_AGAIN_AFTER_S)
            return


@pytest.mark.parametrize("point", failpoints())
async def test_a_kill_loses_nothing_and_does_nothing_twice(
    system: System, reached: Reached, point: str
) -> None:
    assert point in reached, f"nothing in stimuli.py leads to {point}: give it a stimulus"
    for service in reached[point]:
        system.failpoints.arm(point, "kill", service=service)

    await bring_to(system, point, reached[point])

    system.failpoints.disarm()
    await system.assert_nothing_is_lost()


def test_there_are_points_around_every_durable_step() -> None:
    steps = {point.partition(".")[0] for point in failpoints()}

    assert {"command", "relay", "chunk", "event", "park", "tries", "delivery", "hold"} <= steps
