"""How long the partitions of a dead worker stall, and whether others do."""

import asyncio
import signal
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Final

import pytest
from aiokafka.errors import KafkaError

from chassis.kafka.client import admin_client
from chassis.kafka.groups import group_assignments
from chassis.testing import eventually
from contracts.topics import USERS_USER
from tests.faults.harness import System
from tests.faults.measured import print_measured
from tests.faults.observing import EVERY_S, SHORTEST_STALL_S, Observer, Stall
from tests.faults.watch import PER_SECOND, Watch, watching

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stalls")]

ADVANCES_WITHIN_S: Final = 10.0
RESTARTED_ADVANCES_WITHIN_S: Final = 5.0
OTHERS_PAUSE_AT_MOST_S: Final = 1.0
LONGEST_BACK_OFF_S: Final = 3.0

_DEATHS: Final = 3
_POLL_EVERY_S: Final = 0.25
_WITHOUT_FAULT_S: Final = 8.0


@pytest.fixture
def second(system: System) -> Iterator[str]:
    """A second worker of the accounts service, which ends without leaving its group."""
    name = system.cluster.add_worker("accounts", 2, stop_signal=signal.SIGKILL)
    yield name
    system.cluster.remove_worker(name)


async def assigned(system: System, worker: str) -> set[int]:
    """Wait until a worker and others have partitions; return the worker's."""
    own: set[int] = set()

    async def has_some() -> bool:
        async with admin_client(system.cluster.kafka_bootstrap) as client:
            workers = await group_assignments(client, "accounts")
        own.clear()
        for member, partitions in workers.items():
            if worker in member:
                own.update(each.partition for each in partitions if each.topic == USERS_USER.name)
        return bool(own) and len(workers) > 1

    await eventually(has_some, within_s=60, every_s=_POLL_EVERY_S, despite=(KafkaError,))
    return own


@asynccontextmanager
async def observed_load(system: System) -> AsyncIterator[tuple[Observer, Watch]]:
    """Observe stalls and readiness under load, and assert that nothing is lost."""
    observer = Observer(system.cluster, system.workload.promised)
    async with watching(system) as watch:
        async with system.workload.at(PER_SECOND), observer.observing():
            yield observer, watch
        await watch.until_well()
    await system.assert_nothing_is_lost()


async def usual_stall_s(observer: Observer) -> float:
    """Observe without a fault; return the longest stall on this machine."""
    await asyncio.sleep(_WITHOUT_FAULT_S)
    longest = max((each.seconds for each in observer.stalls.ended), default=0.0)
    observer.stalls.ended.clear()
    return longest


def longest_gap_s(observer: Observer) -> float:
    """Return the longest time between two samples: no time is known more exactly."""
    times = [each.at_s for each in observer.samples]
    return max(after - before for before, after in pairwise(times))


async def until_all_advance(observer: Observer) -> None:
    """Wait until the group has noticed a dead worker, and every earlier stall has ended."""
    noticed_at_s = observer.now_s + ADVANCES_WITHIN_S

    async def has_moved() -> bool:
        stalled_since_s = [since for _, since in observer.stalls._behind.values()]
        return observer.now_s > noticed_at_s and all(s > noticed_at_s for s in stalled_since_s)

    await eventually(has_moved, within_s=60, every_s=_POLL_EVERY_S)


class TestAKilledWorker:
    async def test_has_its_partitions_taken_over_when_it_is_not_started_again(
        self, system: System, second: str
    ) -> None:
        own = await assigned(system, second)
        async with observed_load(system) as (observer, watch):
            usual_s = await usual_stall_s(observer)

            await asyncio.to_thread(system.cluster.remove_worker, second)

            await until_all_advance(observer)
            stalls = list(observer.stalls.ended)
        assert not watch.not_ready
        late_s = usual_s + longest_gap_s(observer)
        assert {each.partition for each in stalls} & own
        check(stalls, own, late_s, within_s=ADVANCES_WITHIN_S)

    async def test_has_its_partitions_back_when_it_is_started_again(
        self, system: System, second: str
    ) -> None:
        own = await assigned(system, second)
        async with observed_load(system) as (observer, watch):
            usual_s = await usual_stall_s(observer)

            system.cluster.kill(second)

            await until_all_advance(observer)
            stalls = list(observer.stalls.ended)
        assert watch.restarts == {second: 1}
        assert not watch.not_ready
        late_s = usual_s + longest_gap_s(observer)
        check(stalls, own, late_s, within_s=RESTARTED_ADVANCES_WITHIN_S)


def check(
    stalls: Collection[Stall], partitions: Collection[int], late_s: float, *, within_s: float
) -> None:
    """Assert the bounds of stalls; a busy machine is late with everything."""
    ours = [
        each.seconds
        for each in stalls
        if each.service == "accounts"
        and each.topic == USERS_USER.name
        and each.partition in partitions
    ]
    others = [
        each
        for each in stalls
        if not (each.service == "accounts" and each.topic == USERS_USER.name)
        or each.partition not in partitions
    ]
    # A shorter stall cannot be observed.
    ours = ours or [SHORTEST_STALL_S]
    print_measured("delay of everything on this machine", [late_s], bound=OTHERS_PAUSE_AT_MOST_S)
    print_measured("advanced again after", ours, bound=within_s)
    print_measured(
        "others paused", [e.seconds for e in others] or [0.0], bound=OTHERS_PAUSE_AT_MOST_S
    )
    assert max(ours) < within_s + late_s, ours
    assert all(each.seconds < OTHERS_PAUSE_AT_MOST_S + late_s for each in others), others


class TestAFaustAppThatCrashes:
    async def test_ends_its_process_which_is_started_again_until_it_works(
        self, system: System
    ) -> None:
        async with observed_load(system) as (observer, watch):
            # No chunk and no event can be started, and no event is the cause.
            system.failpoints.arm("tries.after-count", "always raise", service="accounts")

            async def has_died_often() -> bool:
                return watch.restarts.get("accounts", 0) >= _DEATHS

            await eventually(has_died_often, within_s=120, every_s=_POLL_EVERY_S)
            system.failpoints.disarm()
            await until_all_advance(observer)
        waits_s = waited_s(observer, "accounts")
        print_measured("waited before the next start", waits_s, bound=LONGEST_BACK_OFF_S)
        # With four samples a second it may have been a little longer, or shorter.
        assert max(waits_s) < LONGEST_BACK_OFF_S + 4 * EVERY_S
        assert watch.restarts.keys() == {"accounts"}
        # The API of the process that dies is not ready; all others stay ready.
        assert watch.not_ready.keys() <= {"accounts"}


def waited_s(observer: Observer, name: str) -> list[float]:
    """Return how long a process waited each time before it was started again."""
    waits: list[float] = []
    since: float | None = None
    for sample in observer.samples:
        waiting = sample.states.get(name) == "waiting"
        if waiting and since is None:
            since = sample.at_s
        elif not waiting and since is not None:
            waits.append(sample.at_s - since)
            since = None
    return waits or [0.0]
