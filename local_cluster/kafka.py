"""A real Kafka: one process that is broker and controller, on loopback."""

import asyncio
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError

from local_cluster.environment import inherited
from local_cluster.errors import ClusterError
from local_cluster.processes import ProcessSpec

_UP_WITHIN_S = 240.0


def _logging(file: str) -> str:
    # As a URI: log4j takes a comma in a path for the end of it.
    return f"-Dlog4j2.configurationFile={Path(__file__).with_name(file).as_uri()}"


# A tool lives for seconds: the quick compiler and the small collector start it sooner.
_TOOL_OPTIONS = (
    "-Xmx256m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    _logging("tools-log4j2.yaml"),
)
_PROPERTIES_FILE = "server.properties"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # Topics come from the catalogue: a mistyped name is an error, not a new topic.
    "auto.create.topics.enable": "false",
    # There is only one broker.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Few clients on a small machine: fewer files, and a quicker start and stop.
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",
    # A member that joins alone need not wait for others.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A killed broker can register again only after this time, when the controller in the same
    # process has given up its former session.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
}


class Kafka:
    """One broker in ``directory``, on two ports of loopback."""

    def __init__(
        self,
        directory: Path,
        port: int,
        controller_port: int,
        java: Path,
        jars: Sequence[Path],
        java_options: Sequence[str] = (),
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """:param properties: of the broker, beside its usual ones or instead of them"""
        self.port = port
        self.bootstrap = f"127.0.0.1:{port}"
        self._controller_port = controller_port
        # Kafka runs in this folder, and its configuration names only what is in it: a comma in a
        # path would separate two paths there, and a backslash would begin an escape.
        self._home = directory / "kafka"
        self._data = self._home / "data"
        self._environment = inherited(directory)
        self._java = java
        self._java_options = java_options
        self._more_properties = properties
        self._class_path = ":".join(map(str, jars))

    def prepare(self) -> None:
        """Write its configuration, and format its storage if that is not done yet."""
        self._home.mkdir(parents=True, exist_ok=True)
        (self._home / _PROPERTIES_FILE).write_text(self._properties())
        if self._data.exists():
            return
        with tempfile.TemporaryDirectory(dir=self._home) as scratch:
            Path(scratch, _PROPERTIES_FILE).write_text(self._properties())
            cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            outcome = subprocess.run(
                self.tool(
                    "kafka.tools.StorageTool",
                    "format",
                    f"--cluster-id={cluster_id}",
                    "-c",
                    _PROPERTIES_FILE,
                ),
                cwd=scratch,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if outcome.returncode != 0:
                raise ClusterError(f"Kafka's storage could not be formatted: {outcome.stderr}")
            # Renamed last, so that a directory of this name is always formatted completely.
            Path(scratch, "data").rename(self._data)

    def spec(self) -> ProcessSpec:
        """Return how the supervisor runs it."""
        return ProcessSpec(
            name="kafka",
            argv=(
                str(self._java),
                "-Xms128m",
                "-Xmx512m",
                "-XX:+UseG1GC",
                "-XX:+ExitOnOutOfMemoryError",
                *self._java_options,
                _logging("log4j2.yaml"),
                "-cp",
                self._class_path,
                "kafka.Kafka",
                _PROPERTIES_FILE,
            ),
            cwd=str(self._home),
            stage=1,
            port=self.port,
        )

    def tool(self, main_class: str, *arguments: str) -> list[str]:
        """Return the command line of one of Kafka's own tools."""
        return [str(self._java), *_TOOL_OPTIONS, "-cp", self._class_path, main_class, *arguments]

    async def wait_until_up(self) -> None:
        """Return once it serves clients."""
        deadline = time.monotonic() + _UP_WITHIN_S
        while not await self._answers():
            if time.monotonic() > deadline:
                raise ClusterError("Kafka does not answer")
            await asyncio.sleep(0.1)

    async def _answers(self) -> bool:
        try:
            # The port is tried first: the client would log an error for every attempt.
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            client = AIOKafkaClient(bootstrap_servers=self.bootstrap)
            try:
                await client.bootstrap()
                return bool(client.cluster.brokers())
            finally:
                await client.close()
        except (OSError, KafkaError):
            return False

    def _properties(self) -> str:
        mine = f"PLAINTEXT://{self.bootstrap}"
        everything = PROPERTIES | {
            "log.dirs": "data",
            "listeners": f"{mine},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": mine,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            **self._more_properties,
        }
        return "".join(f"{key}={value}\n" for key, value in everything.items())
