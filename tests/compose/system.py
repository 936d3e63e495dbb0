"""The containers of a compose file as a project of the tests' own, on ports of its own."""

import asyncio
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from chassis.testing import eventually
from local_cluster.ports import free_port
from local_cluster.settings import REPOSITORY
from services import SERVICES

#: One for each clone, so that what a killed run left is found and removed.
_PROJECT: Final = f"onboarding-tests-{hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:8]}"
_PORTS: Final = ("GATEWAY", "OPERATORS", "SLACK")
_WITHIN_S: Final = 600
# As PID 1 is docker's own, which ends with its child.
_KILL_ALL: Final = """
import os, signal
others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {1, os.getpid()}
for each in others:
    os.kill(each, signal.SIGKILL)
"""


class Files(NamedTuple):
    """The files that describe a system, and the brokers in it."""

    names: Sequence[str]
    brokers: Sequence[str]


ALONE: Final = Files(["docker-compose.yml"], ["kafka"])
CLUSTER: Final = Files([*ALONE.names, "compose.cluster.yml"], ["kafka", "kafka-2", "kafka-3"])


class System:
    """One compose project; its containers are removed at the end, with their data.

    :ivar staying: what stays up: the processes, the brokers and PostgreSQL
    """

    def __init__(self, files: Files) -> None:
        self.project = f"{_PROJECT}-{len(files.brokers)}"
        self.network = f"{self.project}_default"
        self.staying = {"postgres", *files.brokers, *(each.name for each in SERVICES)}
        self._brokers = [each.upper().replace("-", "_") for each in files.brokers]
        self._ports = {name: free_port() for name in (*_PORTS, *self._brokers)}
        self.environment = {
            **os.environ,
            "COMPOSE_FILE": os.pathsep.join(files.names),
            "COMPOSE_PROJECT_NAME": self.project,
            **{f"PUBLISHED_{name}_PORT": str(port) for name, port in self._ports.items()},
        }

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['GATEWAY']}"

    @property
    def operators_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['OPERATORS']}"

    @property
    def kafka_bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{self._ports[each]}" for each in self._brokers)

    @property
    def slack_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['SLACK']}"

    @property
    def operator_password(self) -> str:
        return self.secret("users", "operator_password")

    def secret(self, reader: str, name: str) -> str:
        """Return a secret of one of the processes."""
        return self.compose("exec", "-T", reader, "cat", f"/run/secrets/{reader}/{name}")

    def up(self) -> None:
        self.compose("up", "--build", "--wait")

    def scale(self, name: str, count: int) -> None:
        """Run so many containers of a service; those that run are kept."""
        scale = f"--scale={name}={count}"
        self.compose("up", "--wait", "--no-deps", "--no-recreate", scale, name)

    def down(self, *options: str) -> None:
        self.compose("down", "--remove-orphans", *options)

    def verify(self) -> str:
        """Run the verification in a container; an AssertionError has its report if it fails."""
        return self.compose("run", "--rm", "verify", "--wait=120")

    def compose(self, *arguments: str) -> str:
        return self.docker("compose", *arguments)

    def docker(self, *arguments: str) -> str:
        ended = subprocess.run(
            ["docker", *arguments],  # noqa: S607 - the one on the path
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )
        assert ended.returncode == 0, f"docker {arguments}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def containers(self, *names: str) -> list[dict[str, Any]]:
        """Every container of these services, or of all, as ``docker inspect`` shows it."""
        ids = self.compose("ps", "--all", "--quiet", *names).split()
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids))
        return found

    def kill(self, name: str) -> None:
        """Kill the process of a service's first container, which is no stop that was asked for."""
        self.compose("exec", "-T", name, "python", "-c", _KILL_ALL)

    async def healthy(self, *names: str) -> None:
        """Wait until each container of these services is healthy, or of all that stay up."""

        async def are() -> bool:
            found = await asyncio.to_thread(self.containers, *(names or sorted(self.staying)))
            return all(health_of(each) == "healthy" for each in found)

        await eventually(are, within_s=240, every_s=1)


def health_of(container: dict[str, Any]) -> str:
    """Return ``healthy`` and so on of a container that runs, or else the state that it is in."""
    state = container["State"]
    if state["Status"] != "running":
        return str(state["Status"])
    return str(state.get("Health", {}).get("Status", "running"))


@contextmanager
def running_system(files: Files) -> Iterator[System]:
    """Start everything on an empty project, and remove it at the end."""
    system = System(files)
    system.down("--volumes")
    try:
        system.up()
        yield system
    finally:
        # The last of several brokers waits for the others, until its time is over.
        system.down("--volumes", "--timeout=20")
