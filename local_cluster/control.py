"""Sends requests to the supervisor of a directory, and starts it where there is none."""

import fcntl
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local_cluster.directories import private_folder
from local_cluster.environment import inherited
from local_cluster.errors import ClusterError
from local_cluster.processes import ProcessSpec, ProcessStatus, mark, socket_path
from local_cluster.settings import REPOSITORY

_ANSWERS_WITHIN_S = 60
# Stopping is as slow as the slowest process's grace, stage after stage.
_STOPS_WITHIN_S = 120


class Control:
    """The client of one directory's supervisor."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def is_up(self) -> bool:
        """Return whether a supervisor runs for this directory."""
        try:
            lock = (self._directory / "supervisor.lock").open()
        except FileNotFoundError:
            return False
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def launch(self, lifeline: Path | None = None) -> None:
        """Start a supervisor that outlives this process, or lives while a lifeline is held open."""
        logs = self._directory / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        private_folder(socket_path(self._directory).parent)
        options = [] if lifeline is None else ["--lifeline", str(lifeline)]
        with (logs / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "local_cluster.supervisor", str(self._directory), *options],
                cwd=REPOSITORY,
                env=inherited(self._directory) | mark(self._directory, "supervisor"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _ANSWERS_WITHIN_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                self.status()
            except ClusterError:
                time.sleep(0.02)
            else:
                # It outlives us: this avoids a warning that it was not waited for.
                process.returncode = 0
                return
        raise ClusterError(f"the supervisor did not come up: see {logs / 'supervisor.log'}")

    def start(self, specs: Iterable[ProcessSpec]) -> None:
        """Start these processes in the present environment; see ``Supervisor.start``."""
        request = {
            "do": "start",
            "processes": [asdict(spec) for spec in specs],
            "environment": inherited(self._directory),
        }
        self._request(request, _STOPS_WITHIN_S)

    def unlike(self, specs: Iterable[ProcessSpec]) -> list[str]:
        """Return the names of those that do not run as described."""
        request = {"do": "unlike", "processes": [asdict(spec) for spec in specs]}
        answer: list[str] = self._request(request, _ANSWERS_WITHIN_S)
        return answer

    def resume(self, *names: str) -> None:
        """Start stopped processes again, as they were described."""
        self._request({"do": "resume", "names": names}, _ANSWERS_WITHIN_S)

    def stop(self, *names: str) -> None:
        """Stop these and wait until they are gone; they stay stopped until started."""
        self._request({"do": "stop", "names": names}, _STOPS_WITHIN_S)

    def status(self) -> dict[str, ProcessStatus]:
        """Return every process by its name."""
        answer = self._request({"do": "status"}, _ANSWERS_WITHIN_S)
        return {each["name"]: ProcessStatus(**each) for each in answer}

    def running(self) -> dict[str, ProcessStatus]:
        """Return those processes that run now."""
        return {name: each for name, each in self.status().items() if each.pid}

    def end(self) -> None:
        """Stop everything in order, and the supervisor with it."""
        self._request({"do": "end"}, _STOPS_WITHIN_S)
        deadline = time.monotonic() + _ANSWERS_WITHIN_S
        while self.is_up():
            if time.monotonic() > deadline:
                raise ClusterError("the supervisor stopped everything but does not end itself")
            time.sleep(0.02)

    def _request(self, request: dict[str, Any], within_s: float) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within_s)
            try:
                connection.connect(str(socket_path(self._directory)))
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = connection.makefile("rb").readline()
            except OSError as error:
                raise ClusterError(f"the supervisor does not answer: {error}") from error
        if not answer:
            raise ClusterError("the supervisor closed the connection without an answer")
        return json.loads(answer)
