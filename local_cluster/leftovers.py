"""Finds and ends what is left of a cluster whose supervisor was killed."""

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from local_cluster.processes import MARK, MARK_NAME

_GRACE_S = 20.0
_ORDER = ("services", "kafka", "postgres")


def find_leftovers(directory: Path) -> dict[str, list[psutil.Process]]:
    """Return the processes of this cluster, as ``services``, ``kafka`` and ``postgres``.

    Known by the mark in the environment they were started with. Unlike a recorded process id it
    is there from the first instant and can't come to mean a stranger.
    """
    found: dict[str, list[psutil.Process]] = {who: [] for who in _ORDER}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue  # another user's, or gone meanwhile
        if environment.get(MARK) == str(directory):
            name = environment.get(MARK_NAME, "")
            found[name if name in found else "services"].append(process)
    return found


def reap(directory: Path, report: Callable[[str, str], None]) -> None:
    """End what is left of this cluster, in the order in which it would have been stopped."""
    for who, processes in find_leftovers(directory).items():
        for process in processes:
            # PostgreSQL waits for its clients on SIGTERM, and does not on SIGINT.
            _send(process, signal.SIGINT if who == "postgres" else signal.SIGTERM)
            _send(process, signal.SIGCONT)  # a frozen one would not hear it
        _, deaf = psutil.wait_procs(processes, timeout=_GRACE_S)
        for process in deaf:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(deaf, timeout=_GRACE_S)
        if processes:
            report(who, f"ended {len(processes)} left without a supervisor")


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)  # psutil makes sure that the id still means this process
