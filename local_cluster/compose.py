"""The system in the containers of docker-compose.yml: starts it, and finds where it is."""

import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from aiokafka.errors import KafkaError
from rich.console import Console

from chassis.kafka.client import KafkaSecurity, admin_client
from chassis.kafka.groups import group_assignments
from chassis.settings import KafkaSettings
from local_cluster.demo import Addresses
from local_cluster.display import print_places
from local_cluster.errors import ClusterError
from local_cluster.settings import REPOSITORY
from local_cluster.topology import OPERATOR, SLACK_STAND_IN
from services import SERVICES, WITH_DATABASE

_OPERATOR_PASSWORD = "/run/secrets/users/operator_password"  # noqa: S105 - a file in a container


def up() -> None:
    """Build the image, start what is not running, and wait until all is healthy.

    :raises ClusterError: there is no docker compose, or something is not healthy
    """
    _compose("up", "--build", "--wait")


def verify(arguments: Sequence[str]) -> NoReturn:
    """Run the verification in a container, with these arguments, and exit with its code.

    :raises ClusterError: there is no docker compose
    """
    ended = _run("run", "--rm", "verify", *arguments)
    sys.exit(ended.returncode)


def addresses() -> Addresses:
    """Return where the containers that are up are reached from this machine.

    :raises ClusterError: they are not up
    """
    kafka = _published("kafka", 19092)
    return Addresses(
        gateway=f"http://{_published('gateway', 8000)}",
        operators=f"http://{_published('gateway', 8001)}",
        kafka_bootstrap=kafka,
        operator_password=_answer("exec", "-T", "users", "cat", _OPERATOR_PASSWORD),
        consumers_joined=lambda: _groups_have_members(kafka),
        notifies="notification" in [each.name for each in WITH_DATABASE],
    )


def print_addresses(console: Console, found: Addresses) -> None:
    """Print where everything is, the gateway first."""
    places = {
        "gateway": found.gateway,
        "API page": f"{found.gateway}/docs",
        "for operators": f"{found.operators}/docs",
        **_slack(),
        "operator": f"{OPERATOR}, password by: docker compose exec users cat {_OPERATOR_PASSWORD}",
        "Kafka": found.kafka_bootstrap,
        "PostgreSQL": "docker compose exec postgres psql --username=postgres users",
        "logs": "docker compose logs",
    }
    print_places(console, places)


def _slack() -> dict[str, str]:
    if SLACK_STAND_IN not in [each.name for each in SERVICES]:
        return {}
    return {"Slack stand-in": f"http://{_published(SLACK_STAND_IN, 28105)}"}


async def _groups_have_members(bootstrap: str) -> bool:
    try:
        async with admin_client(bootstrap, KafkaSecurity.of(KafkaSettings())) as client:
            return all([await group_assignments(client, each.name) for each in WITH_DATABASE])
    except (KafkaError, OSError):
        return False


def _published(service: str, port: int) -> str:
    """Return the host and port under which a container's port is reached."""
    return _answer("port", service, str(port))


def _answer(*arguments: str) -> str:
    return _compose(*arguments, captured=True).strip()


def _compose(*arguments: str, captured: bool = False) -> str:
    ended = _run(*arguments, captured=captured)
    if ended.returncode != 0:
        raise ClusterError(f"docker compose {arguments[0]} failed: see above")
    return ended.stdout or ""


def _run(*arguments: str, captured: bool = False) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["docker", "compose", *arguments],  # noqa: S607 - the one on the path
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if captured else None,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError("docker is missing: CLUSTER=compose needs it") from None
