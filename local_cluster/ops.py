"""The operators' commands of a service, with the settings of this cluster; and which one helps."""

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from local_cluster.cluster import Cluster
from local_cluster.errors import ClusterError
from local_cluster.status import Trouble
from services import WITH_DATABASE

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

    :raises ClusterError: no service of this name has operators' commands, or PostgreSQL is not up
    """
    known = {each.name: each for each in WITH_DATABASE}
    if service not in known:
        raise ClusterError(f"no service {service}; there are: {', '.join(known)}")
    running = cluster.control.status() if cluster.control.is_up() else {}
    if "postgres" not in running or not running["postgres"].pid:
        raise ClusterError("PostgreSQL is not up: make up starts it")
    spec = cluster.topology.spec(known[service])
    prefix = known[service].prefix
    for_people = {f"{prefix}LOG_FORMAT": os.environ.get(f"{prefix}LOG_FORMAT", "console")}
    command = [*spec.argv, *arguments]
    sys.stdout.flush()
    # In the directory of the caller, who may name a file.
    os.execve(command[0], command, os.environ | spec.environment | for_people)  # noqa: S606
