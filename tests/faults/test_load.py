"""Ten times the usual load: memory stays bounded, the backlog drains, nothing is lost."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import psutil
import pytest

from chassis.testing import eventually
from tests.declared import declared
from tests.faults.harness import System
from tests.faults.measured import print_measured
from tests.faults.observing import Observer
from tests.faults.watch import PER_SECOND

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("load")]

#: Most memory of a process beyond that at rest. A consumer holds at most four chunks of a
#: partition, a relay one batch, an API the requests that it answers.
MORE_MEMORY_MIB: Final = 64.0
TIMES: Final = 10
DRAINS_WITHIN_S: Final = 120.0

_A_MINUTE_S: Final = 60.0
_POLL_EVERY_S: Final = 0.5
_STOPPED: Final = declared("accounts", "audit", "notification")


class Memory:
    """The resident memory of each service, in MiB: at first, and its maximum since then."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._most: defaultdict[str, float] = defaultdict(float)
        self._usual = self._sample()

    @property
    def more(self) -> Mapping[str, float]:
        """The maximum of each, beyond that at first."""
        return {name: self._most[name] - usual for name, usual in self._usual.items()}

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            self._sample()
            await asyncio.sleep(_POLL_EVERY_S)

    def _sample(self) -> dict[str, float]:
        now: dict[str, float] = {}
        for name, process in self._system.cluster.processes().items():
            # A process that just started has no id yet.
            if name in self._system.services and process.pid:
                with suppress(psutil.NoSuchProcess):
                    now[name] = psutil.Process(process.pid).memory_info().rss / 2**20
                    self._most[name] = max(self._most[name], now[name])
        return now


class TestTenTimesTheUsualLoad:
    async def test_loses_nothing_and_the_backlog_of_stopped_consumers_drains(
        self, system: System, outage_s: float
    ) -> None:
        lasts_s = min(outage_s, _A_MINUTE_S)
        # A process that has worked once has loaded its code and opened its connections.
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
                # Half of the events arrive while their consumers are stopped.
                for each in _STOPPED:
                    await asyncio.to_thread(system.cluster.stop, each)
                await asyncio.sleep(lasts_s / 2)
                for each in _STOPPED:
                    await asyncio.to_thread(system.cluster.resume, each)
                await asyncio.sleep(lasts_s / 4)
            arrived = len(system.workload.promised) - before
            lasted_s = time.monotonic() - began
            ended = time.monotonic()

            async def is_drained() -> bool:
                last = observer.samples[-1]
                lags = dict(last.lags)
                return lags.keys() >= set(_STOPPED) and not sum(lags.values()) + sum(
                    last.outboxes.values()
                )

            await eventually(is_drained, within_s=DRAINS_WITHIN_S)
            drained_after_s = time.monotonic() - ended

        await system.assert_nothing_is_lost(within_s=180)
        looking.cancel()
        await asyncio.wait([looking])
        backlog = max(sum(each.lags.values()) for each in observer.samples)
        print_measured("arrived a second", [arrived / lasted_s], unit="sign-ups")
        print_measured("waited", [float(backlog)], unit="events")
        print_measured("drained after", [drained_after_s], bound=DRAINS_WITHIN_S)
        for name, more in memory.more.items():
            print_measured(f"more memory of {name}", [more], bound=MORE_MEMORY_MIB, unit="MiB")
        assert backlog > PER_SECOND * lasts_s / 2, "nothing had to wait"
        assert max(memory.more.values()) < MORE_MEMORY_MIB, memory.more
