"""The whole system, started once for all end-to-end tests of a run that share it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from local_cluster.testing import RunningCluster, running_cluster
from tests.e2e.people import Operator


# Not for the session: a system that does nothing takes a quarter of a processor all the same.
@pytest.fixture(scope="package")
def cluster(run_directory: Path) -> Iterator[RunningCluster]:
    """Every process, on free ports; each test signs up its own people and looks only at those."""
    with running_cluster(run_directory / "e2e") as running:
        yield running


@pytest.fixture
async def gateway(cluster: RunningCluster) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway."""
    async with httpx.AsyncClient(base_url=cluster.gateway_url, timeout=60) as client:
        yield client


@pytest.fixture
async def operator(cluster: RunningCluster, gateway: httpx.AsyncClient) -> Operator:
    """The operator of the cluster, signed in."""
    return await Operator.signed_in(gateway, cluster)
