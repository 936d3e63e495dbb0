"""The system becomes ready by itself, in whichever order its processes start."""

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest

from chassis.testing import eventually
from tests.declared import declared
from tests.e2e.people import everyone_is_ready
from tests.faults.harness import System
from tests.faults.watch import Watch, wait_for_answers, watching
from verification.addresses import SERVICES as WITH_DATABASE

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("start-order")]

INFRASTRUCTURE: Final = ("kafka", "postgres")
ORDERS: Final = (
    declared("gateway", "notification", "audit", "accounts", "users", "kafka", "postgres"),
    declared("users", "accounts", "audit", "notification", "gateway", "postgres", "kafka"),
    declared("kafka", "audit", "gateway", "users", "notification", "accounts", "postgres"),
    declared("postgres", "accounts", "notification", "gateway", "audit", "users", "kafka"),
)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_the_system_becomes_ready_by_itself(system: System, order: Sequence[str]) -> None:
    await system.workload.sign_up(5)
    for name in (*system.services, *INFRASTRUCTURE):
        await asyncio.to_thread(system.cluster.stop, name)

    async with watching(system) as watch:
        for name in order:
            await asyncio.to_thread(system.cluster.resume, name)
            if name in INFRASTRUCTURE and order[-1] != name:
                await until_others_are_reported(watch, order, name)
        await eventually(lambda: everyone_is_ready(system.cluster), within_s=120)
        async with system.workload.at(4):
            await wait_for_answers(system)
        await watch.until_well()

    await system.assert_nothing_is_lost()
    assert not watch.restarts


async def until_others_are_reported(watch: Watch, order: Sequence[str], started: str) -> None:
    """Wait until every service that is up reports what it waits for."""
    up = [each for each in order[: order.index(started)] if each in WITH_DATABASE]
    for each in up:
        if started == "kafka":
            await watch.until_reported(each, "database", "")
        else:
            await watch.until_reported(each, "agents", "Kafka does not answer")
