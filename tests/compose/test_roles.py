"""compose.roles.yml: each role of a service in a container of its own."""

from collections.abc import Iterator

import pytest

from tests.compose.outcome import nothing_is_lost, until_promised
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
    async with load.at(per_second=3):
        await until_promised(load, 10)

    await nothing_is_lost(system, operator, load)
