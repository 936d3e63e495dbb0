"""The operators' commands of a service, with the settings of this cluster; and which one helps."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from local_cluster.cluster import Cluster
from local_cluster.environment import inherited
from local_cluster.errors import ClusterError
from local_cluster.status import Trouble
from services import WITH_DATABASE, DeclaredService

ALL: Final = "all"
_OF_THE_TERMINAL: Final = ("TERM", "COLUMNS", "LINES", "NO_COLOR")

#: What shows more of a trouble: by the check that reports it, the arguments of ``ops``.
_SHOWN_BY: Final = {
    "agents": "{process} progress show",
    "failed-deliveries": "{process} deliveries list --state failed",
    "outbox-age": "{process} outbox list",
    "relay": "{process} outbox list",
    "schema": "{process} migrate",
    "signing-keys": "{process} rotate-keys",
    "timer-worker": "{process} timers list",
    "waits-for-operator": "{process} parked count",
}


def command_for(trouble: Trouble) -> str:
    """Return the command that shows more of a trouble, or ends it, as it is typed."""
    shown_by = _SHOWN_BY.get(trouble.check)
    if shown_by is None:
        return f"make logs PROCESS={trouble.process}"
    return f'make ops ARGS="{shown_by.format(process=trouble.process)}"'


def operate(cluster: Cluster, service: str, arguments: Sequence[str]) -> NoReturn:
    """Become ``python -m`` of a service with these arguments, at this cluster's database.

    With ``all`` it is run for one service after the other, and the worst exit code is taken.

    :raises ClusterError: no service of this name has operators' commands, or PostgreSQL is not up
    """
    known = {each.name: each for each in WITH_DATABASE}
    if service not in (*known, ALL):
        raise ClusterError(f"no service {service}; there are: {', '.join((*known, ALL))}")
    running = cluster.control.status() if cluster.control.is_up() else {}
    if "postgres" not in running or not running["postgres"].pid:
        raise ClusterError("PostgreSQL is not up: make up starts it")
    if service == ALL:
        sys.exit(max(_run(cluster, each, arguments) for each in known.values()))
    command, environment = _command_of(cluster, known[service], arguments)
    sys.stdout.flush()
    # In the directory of the caller, who may name a file.
    os.execve(command[0], command, environment)  # noqa: S606


def _run(cluster: Cluster, service: DeclaredService, arguments: Sequence[str]) -> int:
    print(f"{service.name}:", flush=True)
    command, environment = _command_of(cluster, service, arguments)
    return subprocess.run(command, env=environment, check=False).returncode


def _command_of(
    cluster: Cluster, service: DeclaredService, arguments: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    spec = cluster.topology.spec(service)
    format_ = f"{service.prefix}LOG_FORMAT"
    for_people = {format_: os.environ.get(format_, "console")}
    of_terminal = {name: os.environ[name] for name in _OF_THE_TERMINAL if name in os.environ}
    environment = (
        inherited(cluster.settings.directory) | of_terminal | spec.environment | for_people
    )
    return [*spec.argv, *arguments], environment
