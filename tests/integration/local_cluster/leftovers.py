"""The processes of a cluster, as the machine has them."""

from pathlib import Path

import psutil

from local_cluster.control import Control
from local_cluster.leftovers import find_leftovers
from tests.integration.local_cluster.waiting import until


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return every process of the cluster in ``directory``, its supervisor included."""
    return [each for group in find_leftovers(directory).values() for each in group]


def supervisor_of(directory: Path) -> psutil.Process:
    return next(
        each for each in processes_of(directory) if "local_cluster.supervisor" in each.cmdline()
    )


def kill_supervisor(directory: Path) -> None:
    """Kill the supervisor, and wait until it has ended."""
    supervisor_of(directory).kill()
    until(lambda: not Control(directory).is_up())
