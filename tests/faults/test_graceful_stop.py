"""Processes are asked to end while they are busy: nothing is lost, next to nothing is repeated."""

import asyncio
import signal
from collections.abc import Iterator

import httpx
import pytest

from chassis.testing import eventually
from tests.faults.harness import System, running_system
from tests.faults.watch import answered, under_load, watching

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("graceful-stop")]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("graceful-stop")) as system:
        yield system


async def dropped(system: System) -> int:
    """Return how many events consumers were given once more, since they began."""
    total = 0.0
    async with httpx.AsyncClient() as client:
        for service in ("users", "accounts", "audit", "notification"):
            answer = await client.get(f"{system.cluster.url(service)}/metrics")
            total += sum(
                float(line.rpartition(" ")[2])
                for line in answer.text.splitlines()
                if line.startswith(("consumer_events_total", "audit_records_total"))
                and 'outcome="dropped"' in line
            )
    return int(total)


class TestOneProcess:
    @pytest.mark.parametrize("name", ["users", "accounts", "audit", "notification", "gateway"])
    async def test_ends_in_order_while_it_is_busy(self, system: System, name: str) -> None:
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
    async def test_goes_down_while_it_is_busy_and_comes_up_with_all_of_it(
        self, system: System
    ) -> None:
        report = await system.assert_nothing_is_lost()
        before = report["sequences"].looked_at["repeats"]

        async with system.workload.at(8):
            await answered(system, 20)
            await asyncio.to_thread(system.cluster.down)
            await asyncio.to_thread(system.cluster.up)
            await answered(system, 20)

        async with watching(system) as watch:
            await watch.until_well()
        report = await system.assert_nothing_is_lost()
        assert report["sequences"].looked_at["repeats"] == before
        assert await dropped(system) == 0
