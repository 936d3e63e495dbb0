"""The container engine: PostgreSQL and Kafka for a test run, of the images that people run."""

import logging
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

import docker
import psutil
from docker.errors import DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import ExecWaitStrategy, LogMessageWaitStrategy

from local_cluster.kafka import PROPERTIES
from local_cluster.ports import free_port

_POSTGRES: Final = "postgres:18"
_KAFKA: Final = "apache/kafka:4.3.1"
_START_WITHIN_S: Final = 240
# Says which process of which machine has started a container.
_LABEL: Final = "kafka-native-onboarding.tests"

_log = logging.getLogger(__name__)


class Servers(NamedTuple):
    """Where they answer; the URL is the superuser's."""

    postgres_url: str
    kafka_bootstrap: str


def answers() -> bool:
    """Return whether a container engine answers; if so, remove what killed runs left behind."""
    try:
        client = docker.from_env()
    except DockerException as error:
        _log.warning("no container engine answers: %s", error)
        return False
    try:
        for left in client.containers.list(all=True, filters={"label": _LABEL}):
            if not _is_of_a_running_process(left.labels[_LABEL]):
                left.remove(force=True, v=True)
    finally:
        client.close()
    return True


def _mark_of(process: psutil.Process) -> str:
    return f"{platform.node()} {process.pid} {process.create_time()}"


def _is_of_a_running_process(mark: str) -> bool:
    node, pid, _ = mark.split(" ")
    try:
        return node != platform.node() or _mark_of(psutil.Process(int(pid))) == mark
    except psutil.NoSuchProcess:
        return False


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Run PostgreSQL and Kafka on loopback during the block."""
    # It would be a third image, and what it does for a killed run, the next one does.
    testcontainers_config.ryuk_disabled = True
    password, postgres_port, kafka_port = secrets.token_hex(16), free_port(), free_port()
    postgres = _container(_POSTGRES, {5432: postgres_port})
    postgres.with_env("POSTGRES_PASSWORD", password)
    postgres.with_env("POSTGRES_INITDB_ARGS", "--locale-provider=builtin --builtin-locale=C.UTF-8")
    settings = ("fsync=off", "max_connections=200", "timezone=UTC", "wal_level=logical")
    postgres.with_command([part for setting in settings for part in ("-c", setting)])
    # By TCP: while an empty volume is prepared, the server answers on its socket only.
    postgres.waiting_for(
        ExecWaitStrategy(["pg_isready", "-h", "127.0.0.1"]).with_startup_timeout(_START_WITHIN_S)
    )
    kafka = _container(_KAFKA, {9092: kafka_port})
    for name, value in _settings_of_kafka(kafka_port).items():
        kafka.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
    kafka.waiting_for(
        LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_WITHIN_S)
    )
    with postgres, kafka:
        yield Servers(
            f"postgresql://postgres:{password}@127.0.0.1:{postgres_port}/postgres",
            f"127.0.0.1:{kafka_port}",
        )


def _settings_of_kafka(port: int) -> Mapping[str, str]:
    """Return all of them: with one variable the image leaves out what it would set otherwise."""
    listeners = {"INTERNAL": ":9094", "CONTROLLER": "localhost:9093", "PLAINTEXT": ":9092"}
    return PROPERTIES | {
        "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
        # The broker itself can't reach the port that is published.
        "advertised.listeners": f"INTERNAL://localhost:9094,PLAINTEXT://127.0.0.1:{port}",
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
        "controller.quorum.voters": "1@localhost:9093",
    }


def _container(image: str, ports: Mapping[int, int]) -> DockerContainer:
    container = DockerContainer(image, labels={_LABEL: _mark_of(psutil.Process())})
    for inside, outside in ports.items():
        # On loopback only, which `with_bind_ports` can't say, but the engine understands.
        container.ports[f"{inside}/tcp"] = ("127.0.0.1", outside)  # type: ignore[assignment]
    return container
