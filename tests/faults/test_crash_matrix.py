"""At every failpoint each process that passes it is killed; then nothing is lost."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.e2e.people import eventually
from tests.faults.harness import System, running_system
from tests.faults.points import failpoints
from tests.faults.stimuli import STIMULI, Reached, Stimulus

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("crash-matrix")]

_WITHIN_S: Final = 60.0
_AGAIN_AFTER_S: Final = 3.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all points: each finds it as the crashes before have left it."""
    with running_system(tmp_path_factory.mktemp("crash-matrix")) as system:
        yield system


@pytest.fixture(scope="module")
def reached(system: System) -> Reached:
    """Which services pass which points; found by trying, with nobody killed yet."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, explore(system)).result()


async def explore(system: System) -> Reached:
    """Apply one stimulus after the other to a system at work, and see what is passed."""
    found: defaultdict[str, dict[str, Stimulus]] = defaultdict(dict)
    await system.workload.sign_up(20)
    await system.assert_nothing_is_lost()
    for stimulus in STIMULI:
        system.failpoints.disarm()
        for point in failpoints():
            for service in system.services:
                # Hit, and nothing happens.
                system.failpoints.arm(point, "delay 0", service=service)
        await stimulus.do(system)
        await system.assert_nothing_is_lost()
        for point in failpoints():
            for service in system.services:
                if system.failpoints.was_hit(point, service=service):
                    found[point].setdefault(service, stimulus)
    system.failpoints.disarm()
    return found


async def bring_to(system: System, point: str, upon: dict[str, Stimulus]) -> None:
    """Stimulate the system until every service named has hit the point."""
    deadline = time.monotonic() + _WITHIN_S
    left = dict(upon)

    async def are_hit() -> bool:
        for service in list(left):
            if system.failpoints.was_hit(point, service=service):
                del left[service]
        return not left

    while left:
        assert time.monotonic() < deadline, f"{point} was not hit by {sorted(left)} any more"
        for stimulus in {each.name: each for each in left.values()}.values():
            await stimulus.do(system)
        try:
            await eventually(are_hit, within_s=_AGAIN_AFTER_S)
        except AssertionError:
            continue


@pytest.mark.parametrize("point", failpoints())
async def test_a_kill_loses_nothing_and_does_nothing_twice(
    system: System, reached: Reached, point: str
) -> None:
    assert point in reached, f"nothing in stimuli.py leads to {point}: give it a stimulus"
    upon = dict(reached[point])
    for service in upon:
        system.failpoints.arm(point, "kill", service=service)

    await bring_to(system, point, upon)

    system.failpoints.disarm()
    await system.assert_nothing_is_lost()


def test_there_are_points_around_every_durable_step() -> None:
    steps = {point.partition(".")[0] for point in failpoints()}

    assert {"command", "relay", "chunk", "event", "park", "tries", "delivery"} <= steps
