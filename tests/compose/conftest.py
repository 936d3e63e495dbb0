"""The containers of docker-compose.yml, started once for all tests of a module."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from local_cluster.topology import OPERATOR
from tests.compose.system import ALONE, System, running_system
from tests.e2e.people import Operator, token_of


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Every container, healthy, on free ports."""
    with running_system(ALONE) as running:
        yield running


@pytest.fixture
async def gateway(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway."""
    async with httpx.AsyncClient(base_url=system.gateway_url, timeout=60) as client:
        yield client


@pytest.fixture
async def operator(system: System, gateway: httpx.AsyncClient) -> Operator:
    """The operator, signed in."""
    headers = await token_of(gateway, OPERATOR, system.operator_password)
    return Operator(gateway, system.operators_url, headers)
