"""compose.roles.yml: each role of a service in a container of its own."""

from collections.abc import Iterator

import pytest

from chassis.testing import eventually
from tests.compose.outcome import nothing_is_lost
from tests.compose.system import ALONE, Files, System, running_system
from tests.e2e.people import Operator
from tests.faults.workload import Workload

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Every container, healthy, on free ports."""
    with running_system(Files([*ALONE.names, "compose.roles.yml"], ALONE.brokers)) as running:
        yield running


async def test_an_event_goes_its_way_through_containers_of_one_role_each(
    system: System, operator: Operator
) -> None:
    load = Workload(system.gateway_url)

    async def some_are_promised() -> bool:
        return len(load.promised) >= 10

    async with load.at(per_second=3):
        await eventually(some_are_promised, within_s=60)

    await nothing_is_lost(system, operator, load)
