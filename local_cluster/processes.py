"""What the supervisor is asked to keep running, and how it is reached."""

import hashlib
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A unix socket's whole path has to fit into 108 bytes (104 on some systems).
_LONGEST_SOCKET_PATH = 100
# In the environment of every process of a cluster: whose it is, and which.
MARK = "LOCAL_CLUSTER_OF"
MARK_NAME = "LOCAL_CLUSTER_PROCESS"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: how to start it, how to stop it, and when among the others.

    Stages stop from the highest to the lowest.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    stage: int
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: int = signal.SIGTERM
    stop_grace_s: float = 20.0
    port: int | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ProcessSpec":
        return cls(**document | {"argv": tuple(document["argv"])})


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """How one process is doing.

    ``state`` is ``running``, ``waiting`` (it died and starts again soon) or ``stopped``; ``pid``
    is 0 unless it runs, ``since`` is when the state began (seconds since the epoch), ``last_exit``
    says how it ended the last time.
    """

    name: str
    state: str
    pid: int
    since: float
    restarts: int
    port: int | None
    last_exit: str | None


def socket_path(directory: Path) -> Path:
    """Return where the supervisor of ``directory`` listens; its folder is ours alone."""
    socket = directory / "run" / "control.sock"
    if len(bytes(socket)) > _LONGEST_SOCKET_PATH:
        digest = hashlib.sha256(bytes(directory)).hexdigest()[:16]
        socket = Path(tempfile.gettempdir(), f"local-cluster-{digest}", "control.sock")
    return socket


def mark(directory: Path, name: str) -> dict[str, str]:
    """Return what tells, on a machine full of processes, that one is ours."""
    return {MARK: str(directory), MARK_NAME: name}
