"""Ten times the usual arrival: memory stays bounded, the backlog drains, nothing is lost."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

import psutil
import pytest

from chassis.testing import eventually
from tests.faults.harness import System, running_system
from tests.faults.measured import report
from tests.faults.observing import Observer
from tests.faults.watch import PER_SECOND

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("load")]

#: What a process may have beyond what it had when the system was quiet. A consumer holds four
#: chunks of a partition at most, a relay one batch, an API what it answers at once.
MORE_MEMORY_MIB: Final = 64.0
TIMES: Final = 10
DRAINS_WITHIN_S: Final = 120.0

_A_MINUTE_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.5
_AWAY: Final = ("accounts", "audit", "notification")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("load")) as system:
        yield system


class Memory:
    """The resident memory of each service, in MiB: at first, and at its most since then."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._most: defaultdict[str, float] = defaultdict(float)
        self._usual = self._look()

    @property
    def more(self) -> Mapping[str, float]:
        """How much more than at first each had at its most."""
        return {name: self._most[name] - usual for name, usual in self._usual.items()}

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _look(self) -> dict[str, float]:
        now: dict[str, float] = {}
        for name, process in self._system.cluster.processes().items():
            # One that was just started anew has nothing yet.
            if name in self._system.services and process.pid:
                with suppress(psutil.NoSuchProcess):
                    now[name] = psutil.Process(process.pid).memory_info().rss / 2**20
                    self._most[name] = max(self._most[name], now[name])
        return now


class TestTenTimesTheUsualArrival:
    async def test_is_borne_and_what_waits_for_those_who_were_away_drains(
        self, system: System, outage_s: float
    ) -> None:
        lasts_s = min(outage_s, _A_MINUTE_S)
        # Whoever has worked once has all its code and its connections.
        await system.workload.sign_up(200)
        await system.assert_nothing_is_lost()
        memory = Memory(system)
        looking = asyncio.create_task(memory.watch())
        observer = Observer(system.cluster, system.workload.promised)
        before = len(system.workload.promised)

        async with observer.observing():
            began = time.monotonic()
            async with system.workload.at(TIMES * PER_SECOND):
                await asyncio.sleep(lasts_s / 4)
                # What arrives in half of the time waits for consumers that are away.
                for each in _AWAY:
                    await asyncio.to_thread(system.cluster.stop, each)
                await asyncio.sleep(lasts_s / 2)
                for each in _AWAY:
                    await asyncio.to_thread(system.cluster.resume, each)
                await asyncio.sleep(lasts_s / 4)
            arrived = len(system.workload.promised) - before
            lasted_s = time.monotonic() - began
            ended = time.monotonic()

            async def is_drained() -> bool:
                last = observer.samples[-1]
                lags = dict(last.lags)
                return lags.keys() >= set(_AWAY) and not sum(lags.values()) + sum(
                    last.outboxes.values()
                )

            await eventually(is_drained, within_s=DRAINS_WITHIN_S)
            drained_after_s = time.monotonic() - ended

        await system.assert_nothing_is_lost(within_s=180)
        looking.cancel()
        await asyncio.wait([looking])
        backlog = max(sum(each.lags.values()) for each in observer.samples)
        report("arrived a second", [arrived / lasted_s], unit="sign-ups")
        report("waited", [float(backlog)], unit="events")
        report("drained after", [drained_after_s], bound=DRAINS_WITHIN_S)
        for name, more in memory.more.items():
            report(f"more memory of {name}", [more], bound=MORE_MEMORY_MIB, unit="MiB")
        assert backlog > PER_SECOND * lasts_s / 2, "nothing had to wait"
        assert max(memory.more.values()) < MORE_MEMORY_MIB, memory.more
