"""Finds and ends the processes of a cluster whose supervisor was killed."""

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

    They are recognised by a mark in their environment. Unlike a recorded process id it is there
    from the first instant, and no other process can get it later.
    """
    found: dict[str, list[psutil.Process]] = {group: [] for group in _ORDER}
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
    """End the processes that are left of this cluster, in the order of an orderly stop."""
    for group, processes in find_leftovers(directory).items():
        for process in processes:
            # On SIGTERM PostgreSQL waits for its clients; on SIGINT it does not.
            _send(process, signal.SIGINT if group == "postgres" else signal.SIGTERM)
            _send(process, signal.SIGCONT)  # a frozen process handles no signal
        _, still_running = psutil.wait_procs(processes, timeout=_GRACE_S)
        for process in still_running:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(still_running, timeout=_GRACE_S)
        if processes:
            report(group, f"ended {len(processes)} left without a supervisor")


def _send(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)  # psutil checks that the id is still this process
