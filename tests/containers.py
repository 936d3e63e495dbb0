"""PostgreSQL and Kafka in containers, for all workers of a test run: CLUSTER=testcontainers.

The process that starts the workers starts the containers, and ends them. Those that a killed run
left behind are removed by the next one.
"""

import os
from contextlib import ExitStack
from typing import Final

import pytest

from local_cluster.testing import DatabaseServer

_POSTGRES: Final = "RUN_ON_POSTGRES"
_KAFKA: Final = "RUN_ON_KAFKA"
_RUNNING: Final = pytest.StashKey[ExitStack]()


def are_chosen() -> bool:
    """Return whether CLUSTER=testcontainers chooses these servers.

    :raises UsageError: it is something else
    """
    chosen = os.environ.get("CLUSTER", "local")
    if chosen not in ("local", "testcontainers"):
        raise pytest.UsageError(f"CLUSTER={chosen} must be testcontainers or local for tests")
    return chosen == "testcontainers"


def postgres_server() -> DatabaseServer:
    """Return the server of this run."""
    # It listens on loopback, and ends with the run: the password need not be a secret.
    return DatabaseServer(os.environ[_POSTGRES], owner_password="tests")


def kafka_bootstrap() -> str:
    """Return the address of the broker of this run."""
    return os.environ[_KAFKA]


def pytest_sessionstart(session: pytest.Session) -> None:
    # Before pytest-xdist starts the workers, which get the addresses in their environment.
    if not are_chosen() or "PYTEST_XDIST_WORKER" in os.environ:
        return
    from tests import engine  # noqa: PLC0415 - it takes a while to import, and few runs need it

    if engine.answers():
        stack = session.config.stash[_RUNNING] = ExitStack()
        servers = stack.enter_context(engine.running_servers())
        os.environ |= {
            _POSTGRES: servers.postgres_url,
            _KAFKA: servers.kafka_bootstrap,
        }


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _RUNNING in session.config.stash:
        session.config.stash[_RUNNING].close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if are_chosen() and _POSTGRES not in os.environ:
        for each in items:
            each.add_marker(pytest.mark.skip("no container engine answers"))
