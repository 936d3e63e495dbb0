"""Fixtures: a real PostgreSQL and a real Kafka, one of each for all workers of a test run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from local_cluster.testing import DatabaseServer, RunningInfrastructure, running_infrastructure
from tests import containers

#: The variable with a directory in which several test runs share their servers.
SHARED_BY_RUNS: Final = "TESTS_SHARED_DIRECTORY"


@pytest.fixture(scope="session")
def embedded_postgres(run_directory: Path) -> Iterator[RunningInfrastructure]:
    """PostgreSQL without Kafka: starts in a second."""
    with running_infrastructure(run_directory / "postgres", kafka=False) as infrastructure:
        yield infrastructure


@pytest.fixture(scope="session")
def embedded_kafka(run_directory: Path) -> Iterator[RunningInfrastructure]:
    """Kafka without PostgreSQL: starts in a few seconds."""
    with running_infrastructure(run_directory / "kafka", postgres=False) as infrastructure:
        yield infrastructure


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> DatabaseServer:
    """The server of this run: embedded, or with CLUSTER=testcontainers in a container."""
    if containers.are_chosen():
        return containers.postgres_server()
    server: RunningInfrastructure = request.getfixturevalue("embedded_postgres")
    return server


@pytest.fixture
def database(postgres_server: DatabaseServer) -> Iterator[str]:
    """The URL of a new, empty database for this test only."""
    name = f"test_{uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> str:
    """The bootstrap address of a broker that all tests share: use topics with unique names."""
    if containers.are_chosen():
        return containers.kafka_bootstrap()
    server: RunningInfrastructure = request.getfixturevalue("embedded_kafka")
    return server.kafka_bootstrap


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share."""
    if shared := os.environ.get(SHARED_BY_RUNS):
        return Path(shared)
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
