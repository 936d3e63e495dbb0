"""How long events wait for those who died, and whether anybody else does."""

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
from tests.faults.harness import System, running_system
from tests.faults.measured import report
from tests.faults.observing import EVERY_S, SHORTEST_STALL_S, Observer, Stall
from tests.faults.watch import PER_SECOND, Watch, watching

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stalls")]

FLOWS_AGAIN_WITHIN_S: Final = 10.0
RESTARTED_FLOWS_AGAIN_WITHIN_S: Final = 5.0
OTHERS_PAUSE_AT_MOST_S: Final = 1.0
LONGEST_BACK_OFF_S: Final = 3.0

_DEATHS: Final = 3
_LOOK_EVERY_S: Final = 0.25
_UNDISTURBED_S: Final = 8.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("stalls")) as system:
        yield system


@pytest.fixture
def second(system: System) -> Iterator[str]:
    """A second worker of the accounts service, which ends without a word."""
    name = system.cluster.add_worker("accounts", 2, stop_signal=signal.SIGKILL)
    yield name
    system.cluster.remove_worker(name)


async def shared(system: System, worker: str) -> set[int]:
    """Wait until a worker has partitions beside others; return them."""
    its: set[int] = set()

    async def has_some() -> bool:
        async with admin_client(system.cluster.kafka_bootstrap) as client:
            workers = await group_assignments(client, "accounts")
        its.clear()
        for member, share in workers.items():
            if worker in member:
                its.update(each.partition for each in share if each.topic == USERS_USER.name)
        return bool(its) and len(workers) > 1

    await eventually(has_some, within_s=60, every_s=_LOOK_EVERY_S, despite=(KafkaError,))
    return its


@asynccontextmanager
async def observed_load(system: System) -> AsyncIterator[tuple[Observer, Watch]]:
    """Have clients at work, and see what stands still, and who is unready; nothing is lost."""
    observer = Observer(system.cluster, system.workload.promised)
    async with watching(system) as watch:
        async with system.workload.at(PER_SECOND), observer.observing():
            yield observer, watch
        await watch.until_well()
    await system.assert_nothing_is_lost()


async def undisturbed(observer: Observer) -> float:
    """Look on for a while with nobody dying; return how long events wait on this machine."""
    await asyncio.sleep(_UNDISTURBED_S)
    longest = max((each.seconds for each in observer.stalls.ended), default=0.0)
    observer.stalls.ended.clear()
    return longest


def blur_s(observer: Observer) -> float:
    """Return how far two looks were apart at most: nothing is known more exactly."""
    looks = [each.at_s for each in observer.samples]
    return max(after - before for before, after in pairwise(looks))


async def until_all_flows(observer: Observer) -> None:
    """Wait until a dead worker must be missed by all, and what stood still since then has moved."""
    missed_at_s = observer.now_s + FLOWS_AGAIN_WITHIN_S

    async def has_moved() -> bool:
        stands_since_s = [since for _, since in observer.stalls._behind.values()]
        return observer.now_s > missed_at_s and all(s > missed_at_s for s in stands_since_s)

    await eventually(has_moved, within_s=60, every_s=_LOOK_EVERY_S)


class TestAKilledWorker:
    async def test_has_its_partitions_taken_over_when_it_is_not_started_again(
        self, system: System, second: str
    ) -> None:
        its = await shared(system, second)
        async with observed_load(system) as (observer, watch):
            usual_s = await undisturbed(observer)

            await asyncio.to_thread(system.cluster.remove_worker, second)

            await until_all_flows(observer)
            stalls = list(observer.stalls.ended)
        assert not watch.not_ready
        late_s = usual_s + blur_s(observer)
        assert {each.partition for each in stalls} & its
        check(stalls, its, late_s, flows_within_s=FLOWS_AGAIN_WITHIN_S)

    async def test_has_its_partitions_back_when_it_is_started_again(
        self, system: System, second: str
    ) -> None:
        its = await shared(system, second)
        async with observed_load(system) as (observer, watch):
            usual_s = await undisturbed(observer)

            system.cluster.kill(second)

            await until_all_flows(observer)
            stalls = list(observer.stalls.ended)
        assert watch.restarts == {second: 1}
        assert not watch.not_ready
        late_s = usual_s + blur_s(observer)
        check(stalls, its, late_s, flows_within_s=RESTARTED_FLOWS_AGAIN_WITHIN_S)


def check(
    stalls: Collection[Stall], its: Collection[int], late_s: float, *, flows_within_s: float
) -> None:
    """Hold what stood still against the bounds; a busy machine is late with everything."""
    ours = [
        each.seconds
        for each in stalls
        if each.service == "accounts" and each.topic == USERS_USER.name and each.partition in its
    ]
    others = [
        each
        for each in stalls
        if not (each.service == "accounts" and each.topic == USERS_USER.name)
        or each.partition not in its
    ]
    # What stood still for less than can be seen was as good as never away.
    ours = ours or [SHORTEST_STALL_S]
    report("late with all, as this machine is", [late_s], bound=OTHERS_PAUSE_AT_MOST_S)
    report("flowed again after", ours, bound=flows_within_s)
    report("others paused", [e.seconds for e in others] or [0.0], bound=OTHERS_PAUSE_AT_MOST_S)
    assert max(ours) < flows_within_s + late_s, ours
    assert all(each.seconds < OTHERS_PAUSE_AT_MOST_S + late_s for each in others), others


class TestAFaustAppThatCrashes:
    async def test_ends_its_process_which_is_started_again_until_it_works(
        self, system: System
    ) -> None:
        async with observed_load(system) as (observer, watch):
            # Neither a chunk nor an event can be begun, and no event is to blame for it.
            system.failpoints.arm("tries.after-count", "always raise", service="accounts")

            async def has_died_often() -> bool:
                return watch.restarts.get("accounts", 0) >= _DEATHS

            await eventually(has_died_often, within_s=120, every_s=_LOOK_EVERY_S)
            system.failpoints.disarm()
            await until_all_flows(observer)
        waits_s = waited_s(observer, "accounts")
        report("waited before the next start", waits_s, bound=LONGEST_BACK_OFF_S)
        # Seen four times a second, so it may have been a little longer, or shorter.
        assert max(waits_s) < LONGEST_BACK_OFF_S + 4 * EVERY_S
        assert watch.restarts.keys() == {"accounts"}
        # The API of a process that dies goes with it; nobody else's does.
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
