"""Each process is killed at every failpoint that it passes; then nothing is lost."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Final

import pytest

from audit_service.records import SUBSCRIBER
from contracts.topics import USERS_USER
from tests.declared import declared
from tests.e2e.people import poll
from tests.faults.damage import READERS, damage_one_batch, operating, reported_by_all, skipping
from tests.faults.databases import execute, rows
from tests.faults.harness import System
from tests.faults.points import failpoints
from tests.faults.stimuli import STIMULI, Reached, Stimulus, answered
from tests.faults.timer_process import TIMERS

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("crash-matrix")]

_WITHIN_S: Final = 60.0
_AGAIN_AFTER_S: Final = 3.0
# A timer that is refused, or fails at first, is one of the tests'.
_SERVICES: Final = (*System.services, TIMERS)


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
            for service in _SERVICES:
                # The hit is recorded, and nothing else happens.
                system.failpoints.arm(point, "delay 0", service=service)
        await stimulus.do(system)
        await system.assert_nothing_is_lost()
        for point in failpoints():
            for service in _SERVICES:
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


class TestAKillAmidAnOperatorsAct:
    """The matrix kills at the first act that passes a point; these move progress."""

    @pytest.mark.parametrize("point", ["operations.before-commit", "operations.after-commit"])
    async def test_of_parking_all_leaves_it_done_when_repeated(
        self, system: System, point: str
    ) -> None:
        subscriber = {"subscriber": SUBSCRIBER, "topic": USERS_USER.name, "why": "to lag"}
        progress = f"{system.cluster.url('audit')}/ops/progress"
        async with operating(system) as client:
            paused = await client.post(f"{progress}/pause", json=subscriber)
            assert paused.is_success, paused.text
            await system.workload.sign_up(20)
            await execute(system, "audit", "DELETE FROM park_allowances")
            system.failpoints.arm(point, "kill", service="audit")

            allowed = await answered(
                client.post,
                f"{progress}/park-all",
                json={"topic": USERS_USER.name, "why": "to see it crash"},
            )

            assert system.failpoints.was_hit(point, service="audit")
            system.failpoints.disarm()
            stored = await rows(
                system, "audit", "SELECT partition, below_offset FROM park_allowances"
            )
            assert allowed["allowed"]
            assert sorted(map(tuple, stored)) == sorted(
                (each["partition"], each["below_offset"]) for each in allowed["allowed"]
            )
            await answered(client.post, f"{progress}/resume", json=subscriber)
        await system.assert_nothing_is_lost()

    @pytest.mark.parametrize("point", ["operations.before-commit", "operations.after-commit"])
    async def test_of_skipping_a_batch_skips_it_once(self, system: System, point: str) -> None:
        for each in READERS:
            await asyncio.to_thread(system.cluster.stop, each)
        offset = await damage_one_batch(system, "running")
        for each in READERS:
            await asyncio.to_thread(system.cluster.resume, each)
        await reported_by_all(system, f"can't be read at offset {offset}")
        for each in READERS:
            system.failpoints.arm(point, "kill", service=each)

        async with operating(system) as client:
            for each in READERS:
                while not await skipped(system, each, offset):
                    await answered(client.post, **skipping(system, each, offset))

        assert all(system.failpoints.was_hit(point, service=each) for each in READERS)
        system.failpoints.disarm()
        assert [await skipped(system, each, offset) for each in READERS] == [1] * len(READERS)
        await system.assert_nothing_is_lost()


async def skipped(system: System, service: str, offset: int) -> int:
    """Return how often a service has skipped the batch at an offset."""
    (found,) = await rows(
        system, service, "SELECT count(*) FROM skipped_batches WHERE begin_offset = $1", offset
    )
    return int(found["count"])


def test_there_are_points_around_every_durable_step() -> None:
    steps = {point.partition(".")[0] for point in failpoints()}

    assert {
        "command",
        "relay",
        "chunk",
        "event",
        "park",
        "tries",
        "hold",
        "timer",
    } <= steps
    assert not declared("notification") or {"delivery", "purge"} <= steps
