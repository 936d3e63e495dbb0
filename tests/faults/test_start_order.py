"""In whatever order everything comes up, it comes good by itself."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from chassis.testing import eventually
from tests.e2e.people import everyone_is_ready
from tests.faults.harness import System, running_system
from tests.faults.watch import Watch, answered, watching

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("start-order")]

INFRASTRUCTURE: Final = ("kafka", "postgres")
WITH_DATABASE: Final = ("users", "accounts", "audit", "notification")
ORDERS: Final = (
    ("gateway", "notification", "audit", "accounts", "users", "kafka", "postgres"),
    ("users", "accounts", "audit", "notification", "gateway", "postgres", "kafka"),
    ("kafka", "audit", "gateway", "users", "notification", "accounts", "postgres"),
    ("postgres", "accounts", "notification", "gateway", "audit", "users", "kafka"),
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system, whose processes are stopped and started again."""
    with running_system(tmp_path_factory.mktemp("start-order")) as system:
        yield system


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_everything_comes_good_by_itself(system: System, order: Sequence[str]) -> None:
    await system.workload.sign_up(5)
    for name in (*system.services, *INFRASTRUCTURE):
        await asyncio.to_thread(system.cluster.stop, name)

    async with watching(system) as watch:
        for name in order:
            await asyncio.to_thread(system.cluster.resume, name)
            if name in INFRASTRUCTURE and order[-1] != name:
                await until_others_are_missed(watch, order, name)
        await eventually(lambda: everyone_is_ready(system.cluster), within_s=120)
        async with system.workload.at(4):
            await answered(system)
        await watch.until_well()

    await system.assert_nothing_is_lost()
    assert not watch.restarts


async def until_others_are_missed(watch: Watch, order: Sequence[str], came: str) -> None:
    """Wait until every service that is up says what it waits for."""
    up = [each for each in order[: order.index(came)] if each in WITH_DATABASE]
    for each in up:
        if came == "kafka":
            await watch.until_said(each, "database", "")
        else:
            await watch.until_said(each, "agents", "Kafka does not answer")
