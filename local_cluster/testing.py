"""The cluster for tests: on free ports, in a directory of its own, gone when the test process is.

with running_infrastructure(tmp_path) as infrastructure:
    url = infrastructure.create_database("orders")
    bootstrap = infrastructure.kafka_bootstrap
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from local_cluster.control import Control
from local_cluster.infrastructure import Infrastructure, private_directory
from local_cluster.ports import free_port
from local_cluster.processes import ProcessStatus
from local_cluster.settings import Settings

SERVICE_DATABASES = ("users", "accounts", "audit", "notification")
# The login that owns what `create_database` makes.
_OWNER = "tests"
# Tests kill processes, never the machine: what the system holds in memory is safe enough.
_QUICK = {"fsync": "off"}


class RunningInfrastructure:
    """Kafka and PostgreSQL that are up; every method may be called in and out of an event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.control = Control(settings.directory)
        self._infrastructure = Infrastructure(settings)

    @property
    def kafka_bootstrap(self) -> str:
        return f"127.0.0.1:{self.settings.kafka_port}"

    @property
    def superuser_url(self) -> str:
        return self._infrastructure.postgres.superuser_url

    def postgres_url(self, service: str) -> str:
        """Return how a service's login connects to the service's database."""
        return self._infrastructure.postgres.url(service)

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database and return its URL; a copy of ``template``, if one is named.

        All that are made so belong to one login. Nobody may be connected to the template.
        """
        _wait_for(self._infrastructure.postgres.create_database(name, _OWNER, template))
        return self._infrastructure.postgres.url(_OWNER, name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        _wait_for(self._infrastructure.postgres.drop_database(name))

    def processes(self) -> dict[str, ProcessStatus]:
        """Return every process by its name."""
        return self.control.status()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process; one that dies of it is started again."""
        os.kill(self.processes()[name].pid, number)


@contextmanager
def running_infrastructure(
    directory: Path, *, kafka: bool = True, postgres: bool = True
) -> Iterator[RunningInfrastructure]:
    """Have Kafka and PostgreSQL up in ``directory`` while the block runs.

    Several processes may name one directory: the first starts them, the others join (with what
    the first asked for), the last to leave stops them. If all of them die, so does the cluster.
    """

    async def start(settings: Settings) -> None:
        infrastructure = Infrastructure(settings, _QUICK)
        control = Control(settings.directory)
        async with asyncio.TaskGroup() as group:
            if kafka:
                group.create_task(infrastructure.start_kafka(control, _silent))
            if postgres:
                group.create_task(
                    infrastructure.start_postgres(control, _silent, SERVICE_DATABASES)
                )

    with _shared(private_directory(directory), start) as settings:
        yield RunningInfrastructure(settings)


@contextmanager
def _shared(
    directory: Path, start: Callable[[Settings], Coroutine[Any, Any, None]]
) -> Iterator[Settings]:
    control = Control(directory)
    with (directory / "users.lock").open("w") as users:
        with _turn(directory):
            joined = _join(directory) or _begin(directory, control, start)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield joined.settings
        finally:
            with _turn(directory):
                fcntl.flock(users, fcntl.LOCK_UN)
                with suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    control.end()  # nobody else is there
            os.close(joined.lifeline)


class _Joined(NamedTuple):
    settings: Settings
    # Held open for writing as long as we want the cluster to live.
    lifeline: int


def _join(directory: Path) -> _Joined | None:
    try:
        lifeline = os.open(directory / "lifeline", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None  # no such pipe, or no supervisor at its other end
    settings = Settings.model_validate_json((directory / "settings.json").read_text())
    return _Joined(settings, lifeline)


def _begin(
    directory: Path, control: Control, start: Callable[[Settings], Coroutine[Any, Any, None]]
) -> _Joined:
    ports = {name: free_port() for name in Settings.model_fields if name.endswith("_port")}
    settings = Settings(directory=directory, **ports)
    (directory / "settings.json").write_text(settings.model_dump_json())
    pipe = directory / "lifeline"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    # Opened both ways, since nobody reads yet.
    lifeline = os.open(pipe, os.O_RDWR)
    try:
        control.launch(pipe)
        _wait_for(start(settings))
    except BaseException:
        os.close(lifeline)
        raise
    return _Joined(settings, lifeline)


@contextmanager
def _turn(directory: Path) -> Iterator[None]:
    with (directory / "turn.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _wait_for(work: Coroutine[Any, Any, None]) -> None:
    # In a thread of its own, so that a caller inside an event loop is no obstacle.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def _silent(_who: str, _what: str) -> None:
    """A test says what it needs; how it comes about is in the logs."""
