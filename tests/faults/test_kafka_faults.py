"""Kafka dies, is away, freezes, refuses: commands are answered, and nothing is lost or doubled."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Final

import pytest

from tests.faults.harness import System, running_system
from tests.faults.watch import PER_SECOND, Watch, answered, under_load

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("kafka-faults")]

CONSUMERS: Final = ("users", "accounts", "audit", "notification")
NOT_TAKEN: Final = "Kafka does not take records"
NO_ANSWER: Final = "Kafka does not answer"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all faults: each finds it as those before have left it."""
    with running_system(tmp_path_factory.mktemp("kafka-faults")) as system:
        yield system


async def until_told(watch: Watch) -> None:
    """Wait until everyone who needs Kafka says that it is away."""
    for each in CONSUMERS:
        await watch.until_said(each, "agents", NO_ANSWER)
    await watch.until_said("users", "relay", NOT_TAKEN)


class TestKafka:
    async def test_is_restarted_in_order(self, system: System) -> None:
        async with under_load(system) as watch:
            await asyncio.to_thread(system.cluster.stop, "kafka")
            await asyncio.to_thread(system.cluster.resume, "kafka")

        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}

    async def test_is_killed(self, system: System) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("kafka")

        assert not watch.not_ready
        assert watch.restarts == {"kafka": 1}

    async def test_is_away_for_long(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch:
            await asyncio.to_thread(system.cluster.stop, "kafka")
            before = len(system.workload.promised)
            await asyncio.sleep(outage_s)
            answered_meanwhile = len(system.workload.promised) - before
            await until_told(watch)
            await asyncio.to_thread(system.cluster.resume, "kafka")

        assert answered_meanwhile > outage_s * PER_SECOND / 2
        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}

    async def test_is_frozen_and_goes_on(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("kafka", signal.SIGSTOP)
            before = len(system.workload.promised)
            await asyncio.sleep(outage_s / 2)
            answered_meanwhile = len(system.workload.promised) - before
            await until_told(watch)
            system.cluster.kill("kafka", signal.SIGCONT)

        assert answered_meanwhile > outage_s * PER_SECOND / 4
        assert not watch.not_ready
        assert not watch.restarts

    async def test_is_gone_when_the_services_start(self, system: System) -> None:
        async with under_load(system) as watch:
            await asyncio.to_thread(system.cluster.stop, "kafka")
            for each in system.services:
                system.cluster.kill(each)
            await until_told(watch)
            await answered(system)
            await asyncio.to_thread(system.cluster.resume, "kafka")

        assert {name: watch.restarts[name] for name in system.services} == dict.fromkeys(
            system.services, 1
        )
