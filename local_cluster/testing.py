"""The cluster for tests: on free ports, in a directory of its own, ended with the test process.

``running_infrastructure(directory)`` has Kafka and PostgreSQL up while its block runs,
``running_cluster(directory)`` the services too. Any number may run at once, each in a directory
of its own.
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from chassis.persistence.logins import create_database, create_login, quoted
from local_cluster.cluster import Cluster
from local_cluster.directories import cluster_lock
from local_cluster.environment import inherited
from local_cluster.ports import free_port
from local_cluster.postgres import connect_when_up
from local_cluster.processes import ProcessStatus
from local_cluster.settings import Settings
from local_cluster.topology import OPERATOR
from services import service_named

# The login that owns what `create_database` makes.
_OWNER = "tests"

Start = Callable[[Cluster], Coroutine[Any, Any, None]]


class DatabaseServer:
    """PostgreSQL that is up; every method may be called in and out of an event loop.

    :ivar superuser_url: of its superuser, and of the database that every server has
    """

    def __init__(self, superuser_url: str, owner_password: str) -> None:
        """:param owner_password: of the login that owns what ``create_database`` makes"""
        self.superuser_url = superuser_url
        self._owner_password = owner_password
        self._has_owner = False

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make a database, a copy of ``template``, and return its URL.

        All such databases belong to one login. The template must have no open connections.
        """
        _wait_for(self._create_database(name, template))
        address = urlsplit(self.superuser_url).netloc.rpartition("@")[2]
        return f"postgresql://{_OWNER}:{self._owner_password}@{address}/{name}"

    def drop_database(self, name: str) -> None:
        """Remove a database, and close the connections to it."""
        _wait_for(self._drop_database(name))

    async def _create_database(self, name: str, template: str) -> None:
        connection = await connect_when_up(self.superuser_url)
        try:
            # Once: it hashes the password, and takes a lock.
            if not self._has_owner:
                await create_login(connection, _OWNER, self._owner_password)
                self._has_owner = True
            await create_database(connection, name, _OWNER, template)
        finally:
            await connection.close()

    async def _drop_database(self, name: str) -> None:
        connection = await connect_when_up(self.superuser_url)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
        finally:
            await connection.close()


class RunningInfrastructure(DatabaseServer):
    """Kafka and PostgreSQL that are up; every method may be called in and out of an event loop."""

    def __init__(self, cluster: Cluster) -> None:
        postgres = cluster.postgres
        super().__init__(postgres.superuser_url, postgres.password(_OWNER))
        self._cluster = cluster
        self.directory = cluster.settings.directory
        self.kafka_bootstrap = f"127.0.0.1:{cluster.settings.kafka_port}"

    def postgres_url(self, service: str) -> str:
        """Return how a service's login connects to the service's database."""
        return self._cluster.postgres.url(service)

    def processes(self) -> dict[str, ProcessStatus]:
        """Return every process by its name."""
        return self._cluster.control.status()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process; if it ends, it is started again."""
        os.kill(self.processes()[name].pid, number)

    def stop(self, name: str) -> None:
        """Stop a process and wait until it has ended; it stays stopped until ``resume``."""
        self._cluster.control.stop(name)

    def resume(self, name: str) -> None:
        """Start a stopped process again, without waiting until it is ready."""
        self._cluster.control.resume(name)

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service's process, with its settings."""
        topology = self._cluster.topology
        return inherited(self.directory) | topology.environment(
            next(each for each in topology.services if each.name == service)
        )

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.directory / "logs" / f"{name}.log"


class RunningCluster(RunningInfrastructure):
    """The whole system, ready."""

    operator = OPERATOR

    @property
    def operator_password(self) -> str:
        return self._cluster.operator_password_file.read_text()

    @property
    def gateway_url(self) -> str:
        return self.url("gateway")

    @property
    def operators_url(self) -> str:
        """Where the gateway serves operators."""
        return self._cluster.topology.operators_url("gateway")

    def url(self, name: str) -> str:
        """Return where a service answers: ``users``, ``gateway``, ``slack-stand-in``, …"""
        return self._cluster.topology.url(name)

    def health_url(self, name: str) -> str:
        """Return where a service says why it is not ready: the gateway says it to operators."""
        return self._cluster.topology.operators_url(name)

    def add_worker(self, service: str, number: int, *, stop_signal: int = signal.SIGTERM) -> str:
        """Start one more process of a service, and return its name: ``accounts-2`` of ``accounts``.

        It consumes beside the first, and its relay stands by; it answers no requests. It ends by
        ``stop_signal``: with SIGKILL it does not leave its group.
        """
        topology = self._cluster.topology
        first = topology.spec(next(each for each in topology.services if each.name == service))
        name, prefix = f"{service}-{number}", service.upper()
        own = {"HTTP_PORT": "0", "WORKER_NAME": name, "ROLES": "relay,agents"}
        worker = replace(
            first,
            name=name,
            environment=first.environment | {f"{prefix}_{key}": own[key] for key in own},
            stop_signal=stop_signal,
            port=None,
        )
        self._cluster.control.start([worker])
        return name

    def remove_worker(self, name: str) -> None:
        """Stop a worker that ``add_worker`` started, and wait until it has ended."""
        self._cluster.control.stop(name)

    def down(self) -> None:
        """Stop everything in order, as ``make down`` does; the data stays."""
        self._cluster.down()

    def up(self, *, without: Collection[str] = ()) -> None:
        """Start everything again, and wait until it is ready.

        :param without: services to start by hand; see ``Cluster.up``
        """
        _wait_for(self._cluster.up(without=without))

    def command_by_hand(self, service: str) -> str:
        """Return the line of a shell that starts a service with this cluster's settings."""
        return self._cluster.command_by_hand(service_named(service))


@contextmanager
def running_infrastructure(
    directory: Path, *, kafka: bool = True, postgres: bool = True, short_lived: bool = True
) -> Iterator[RunningInfrastructure]:
    """Run Kafka and PostgreSQL in ``directory`` while the block runs.

    Several processes may name one directory: the first starts the servers (those that it asked
    for), the others use them, and the last one stops them. If all of them die, so does the cluster.

    :param short_lived: starts sooner, but without fsync, and is slower later
    """

    async def start(cluster: Cluster) -> None:
        await cluster.up(kafka=kafka, postgres=postgres, services=False)

    with _shared(directory, start, short_lived=short_lived) as cluster:
        yield RunningInfrastructure(cluster)


@contextmanager
def running_cluster(
    directory: Path, *, short_lived: bool = True, without: Collection[str] = ()
) -> Iterator[RunningCluster]:
    """Run the whole system in ``directory``; shared like the infrastructure.

    :param short_lived: starts sooner, but without fsync, and is slower later
    :param without: services that are not started
    """

    async def start(cluster: Cluster) -> None:
        await cluster.up(without=without)

    with _shared(directory, start, short_lived=short_lived) as cluster:
        yield RunningCluster(cluster)


@contextmanager
def _shared(directory: Path, start: Start, *, short_lived: bool = True) -> Iterator[Cluster]:
    directory = directory.absolute()
    with ExitStack() as held:
        with cluster_lock(directory):
            users = held.enter_context((directory / "users.lock").open("w"))
            joined = _join(directory) or _begin(directory, start, short_lived=short_lived)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield joined.cluster
        finally:
            with cluster_lock(directory):
                fcntl.flock(users, fcntl.LOCK_UN)
                with suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    joined.cluster.down()  # no other process uses it
            os.close(joined.lifeline)


class _Joined(NamedTuple):
    cluster: Cluster
    # Held open for writing: the cluster ends when all processes have closed it.
    lifeline: int


def _join(directory: Path) -> _Joined | None:
    pipe = directory / "lifeline"
    try:
        lifeline = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None  # no such pipe, or no supervisor reads it
    settings = Settings.model_validate_json((directory / "settings.json").read_text())
    return _Joined(_cluster(settings, pipe), lifeline)


def _begin(directory: Path, start: Start, *, short_lived: bool) -> _Joined:
    ports = {name: free_port() for name in Settings.model_fields if name.endswith("_port")}
    settings = Settings.model_validate({"directory": directory} | ports)
    (directory / "settings.json").write_text(settings.model_dump_json())
    pipe = directory / "lifeline"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    cluster = _cluster(settings, pipe, short_lived=short_lived)
    # For both reading and writing, since no process reads it yet. Later for writing only: `_join`
    # takes a reader for a supervisor.
    held = os.open(pipe, os.O_RDWR)
    try:
        _wait_for(start(cluster))
        return _Joined(cluster, os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except BaseException:
        cluster.down()
        raise
    finally:
        os.close(held)


def _cluster(settings: Settings, lifeline: Path, *, short_lived: bool = True) -> Cluster:
    # Tests print no progress: it is in the logs.
    return Cluster(settings, lambda *_: None, lifeline=lifeline, short_lived=short_lived)


def _wait_for(work: Coroutine[Any, Any, None]) -> None:
    # In a thread of its own, so that a caller may be inside an event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
