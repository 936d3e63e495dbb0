"""Ports of loopback: finds free ones, and which process has a taken one."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

import psutil

from local_cluster.errors import ClusterError
from local_cluster.processes import MARK, MARK_NAME

# Below the range of outgoing connections, so that none of them takes the port meanwhile.
_LOWEST, _HIGHEST = 15000, 32000
# By port, the locked file: the system unlocks it when this process ends, however it does.
_reserved: dict[int, int] = {}


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of loopback now."""
    with socket.socket() as probe:
        # As servers do: a connection in TIME_WAIT does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def who_listens(port: int) -> str:
    """Return " by NAME (process ID)" for the listener of a port, or "" if it cannot be seen.

    Of a process of a cluster the cluster's directory is named too.
    """
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.pid:
                continue
            if connection.laddr and connection.laddr.port == port:
                return f" by {_described(psutil.Process(connection.pid))}"
    except psutil.Error:
        pass
    return ""


def _described(process: psutil.Process) -> str:
    name = f"{process.name()} (process {process.pid})"
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return name
    if MARK not in environment:
        return name
    return f"{environment.get(MARK_NAME, name)} of the cluster in {environment[MARK]}"


def free_port() -> int:
    """Return a free port that no other process gets from here while this one runs.

    Whoever asks listens later, and another process that began meanwhile could take the port first.
    """
    directory = Path(tempfile.gettempdir()) / f"local-cluster-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    for _ in range(1000):
        port = random.SystemRandom().randrange(_LOWEST, _HIGHEST)
        if port in _reserved or not is_free(port):
            continue
        reservation = os.open(directory / str(port), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(reservation, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(reservation)
        else:
            _reserved[port] = reservation
            return port
    raise ClusterError("no free port found")
