"""A broker that a test may freeze or stop, a database, and log lines without local variables."""

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from chassis.persistence.database import Database
from local_cluster.testing import RunningInfrastructure, running_infrastructure
from tests.integration.chassis.path import schema


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    """A fresh database with the tables of the chassis."""
    async with schema(database) as engine:
        yield engine


@pytest.fixture(scope="session")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInfrastructure]:
    """Kafka that only this test process uses."""
    with running_infrastructure(tmp_path_factory.mktemp("kafka"), postgres=False) as running:
        yield running


@pytest.fixture(autouse=True, scope="session")
def plain_log_lines() -> None:
    # structlog's default writes every local variable of a traceback, which takes seconds.
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
