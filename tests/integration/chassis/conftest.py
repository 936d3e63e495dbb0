"""A broker that a test may freeze or stop, and log lines of one line each."""

from collections.abc import Iterator

import pytest
import structlog

from local_cluster.testing import RunningInfrastructure, running_infrastructure


@pytest.fixture(scope="session")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInfrastructure]:
    """Kafka of this test process alone."""
    with running_infrastructure(tmp_path_factory.mktemp("kafka"), postgres=False) as running:
        yield running


@pytest.fixture(autouse=True, scope="session")
def plain_log_lines() -> None:
    # With every local variable of a traceback, as is structlog's default, a line takes seconds.
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
