"""Processes are stopped in order under load: nothing is lost, and nothing is repeated."""

import asyncio
import signal

import httpx
import pytest

from chassis.testing import eventually
from tests.e2e.people import SERVICES
from tests.faults.harness import System
from tests.faults.watch import under_load, wait_for_answers, watching
from verification.addresses import SERVICES as WITH_DATABASE

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("graceful-stop")]


async def dropped(system: System) -> int:
    """Return how many repeats the consumers have dropped since they started."""
    total = 0.0
    async with httpx.AsyncClient() as client:
        for service in WITH_DATABASE:
            answer = await client.get(f"{system.cluster.url(service)}/metrics")
            total += sum(
                float(line.rpartition(" ")[2])
                for line in answer.text.splitlines()
                if line.startswith(("consumer_events_total", "audit_records_total"))
                and 'outcome="dropped"' in line
            )
    return int(total)


class TestOneProcess:
    @pytest.mark.parametrize("name", SERVICES)
    async def test_ends_in_order_under_load(self, system: System, name: str) -> None:
        async with under_load(system) as watch:
            before = system.cluster.processes()[name].restarts
            system.cluster.kill(name, signal.SIGTERM)

            async def is_back() -> bool:
                return system.cluster.processes()[name].restarts > before

            await eventually(is_back, within_s=40)

        assert system.cluster.processes()[name].last_exit == "exit code 0"
        assert watch.restarts == {name: 1}
        assert watch.not_ready.keys() == {name}


class TestEverything:
    async def test_is_stopped_under_load_and_has_lost_nothing_when_it_is_up_again(
        self, system: System
    ) -> None:
        report = await system.assert_nothing_is_lost()
        before = report["sequences"].looked_at["repeats"]

        async with system.workload.at(8):
            await wait_for_answers(system, 20)
            await asyncio.to_thread(system.cluster.down)
            await asyncio.to_thread(system.cluster.up)
            await wait_for_answers(system, 20)

        async with watching(system) as watch:
            await watch.until_well()
        report = await system.assert_nothing_is_lost()
        assert report["sequences"].looked_at["repeats"] == before
        assert await dropped(system) == 0
