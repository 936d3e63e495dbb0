"""PostgreSQL and Kafka in containers, for all workers of a test run: CLUSTER=testcontainers.

The process that starts the workers starts the containers, and ends them. Those that a killed run
left behind are removed by the next one.
"""

import asyncio
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final

import asyncpg
import pytest

from chassis.persistence.logins import QUIET, create_database, create_login, quoted

_POSTGRES: Final = "RUN_ON_POSTGRES"
_KAFKA: Final = "RUN_ON_KAFKA"
_OWNER: Final = "tests"
_RUNNING: Final = pytest.StashKey[ExitStack]()


class PostgresInContainer:
    """The server of this run; every method may be called in and out of an event loop."""

    @property
    def superuser_url(self) -> str:
        return os.environ[_POSTGRES]

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database, a copy of ``template``, and return its URL.

        All such databases belong to one login. The template must have no open connections.
        """
        _wait_for(self._create_database(name, template))
        address = self.superuser_url.rpartition("@")[2].partition("/")[0]
        return f"postgresql://{_OWNER}:{_OWNER}@{address}/{name}"

    def drop_database(self, name: str) -> None:
        """Remove a database, and close the connections to it."""
        _wait_for(self._drop_database(name))

    async def _create_database(self, name: str, template: str) -> None:
        connection = await asyncpg.connect(self.superuser_url, server_settings=QUIET)
        try:
            await create_login(connection, _OWNER, _OWNER)
            await create_database(connection, name, _OWNER, template)
        finally:
            await connection.close()

    async def _drop_database(self, name: str) -> None:
        connection = await asyncpg.connect(self.superuser_url)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
        finally:
            await connection.close()


def are_chosen() -> bool:
    """Return whether CLUSTER=testcontainers chooses these servers.

    :raises UsageError: it is something else
    """
    chosen = os.environ.get("CLUSTER", "local")
    if chosen not in ("local", "testcontainers"):
        raise pytest.UsageError(f"CLUSTER={chosen} must be testcontainers or local for tests")
    return chosen == "testcontainers"


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


def _wait_for(work: Coroutine[Any, Any, None]) -> None:
    # In a thread of its own, so that a caller may be inside an event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
