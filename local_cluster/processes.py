"""The processes that the supervisor keeps running, and the path of its socket."""

import hashlib
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A unix socket's whole path has to fit into 108 bytes (104 on some systems).
_LONGEST_SOCKET_PATH = 100
# In the environment of every process: its cluster's directory, and its name.
MARK = "LOCAL_CLUSTER_OF"
MARK_NAME = "LOCAL_CLUSTER_PROCESS"
# One early death may have any reason.
_FAILING_AFTER = 2


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: how to start it, how to stop it, and in which stage.

    The highest stage stops first.
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
    is how it ended the last time, ``early_deaths`` how often in a row it died before it was
    healthy.
    """

    name: str
    state: str
    pid: int
    since: float
    restarts: int
    port: int | None
    last_exit: str | None
    early_deaths: int = 0

    @property
    def failing(self) -> bool:
        """Whether it keeps dying: it runs now and then, but not for long."""
        return self.early_deaths >= _FAILING_AFTER


def socket_path(directory: Path) -> Path:
    """Return where the supervisor of ``directory`` listens, in a private folder."""
    socket = directory / "run" / "control.sock"
    if len(bytes(socket)) > _LONGEST_SOCKET_PATH:
        digest = hashlib.sha256(bytes(directory)).hexdigest()[:16]
        # Not where TMPDIR says: it may say something else in the next terminal.
        socket = Path("/tmp", f"local-cluster-{digest}", "control.sock")  # noqa: S108 (private)
    return socket


def mark(directory: Path, name: str) -> dict[str, str]:
    """Return the environment variables by which a process of the cluster is recognised."""
    return {MARK: str(directory), MARK_NAME: name}
