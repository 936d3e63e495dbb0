"""Fixtures: a real PostgreSQL and a real Kafka, one of each for all workers of a test run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from local_cluster.testing import RunningInfrastructure, running_infrastructure

#: The variable with a directory in which several test runs share their servers.
SHARED_BY_RUNS: Final = "TESTS_SHARED_DIRECTORY"


@pytest.fixture(scope="session")
def postgres_server(run_directory: Path) -> Iterator[RunningInfrastructure]:
    """PostgreSQL without Kafka: starts in a second."""
    with running_infrastructure(run_directory / "postgres", kafka=False) as infrastructure:
        yield infrastructure


@pytest.fixture(scope="session")
def kafka_server(run_directory: Path) -> Iterator[RunningInfrastructure]:
    """Kafka without PostgreSQL: starts in a few seconds."""
    with running_infrastructure(run_directory / "kafka", postgres=False) as infrastructure:
        yield infrastructure


@pytest.fixture
def database(postgres_server: RunningInfrastructure) -> Iterator[str]:
    """The URL of a new, empty database for this test only."""
    name = f"test_{uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def kafka(kafka_server: RunningInfrastructure) -> str:
    """The bootstrap address of a broker that all tests share: use topics with unique names."""
    return kafka_server.kafka_bootstrap


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share."""
    if shared := os.environ.get(SHARED_BY_RUNS):
        return Path(shared)
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
