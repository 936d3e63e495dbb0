"""Keeps processes running: restarts dead ones with back-off, stops all in order.

It is a process of its own (`python -m local_cluster.supervisor DIRECTORY`) with a unix socket: one
line of JSON as a request, one as the answer. It ends on request, on SIGTERM, or when no process has
the lifeline open any more. Why we wrote it: docs/decisions/0003-supervision.md.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chassis.backoff import Backoff
from local_cluster.processes import ProcessSpec, ProcessStatus, mark, socket_path

HEALTHY_AFTER_S = 10.0
BACKOFF = Backoff(first_s=0.5, longest_s=3.0, jitter=False)
LOG_BYTES = 20_000_000
_ROTATE_EVERY_S = 5.0


def pause_s(early_deaths: int) -> float:
    """Return how long to wait after so many deaths in a row before the process was healthy."""
    return BACKOFF.pause_s(early_deaths - 1) if early_deaths else 0.0


class Supervised:
    """One process that is kept running."""

    def __init__(self, spec: ProcessSpec, directory: Path, inherited: Mapping[str, str]) -> None:
        self.spec = spec
        self.inherited = inherited
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._state = "stopped"
        self._since = time.time()
        self._restarts = 0
        self._early_deaths = 0
        self._last_exit: str | None = None
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._keep_running())

    @property
    def status(self) -> ProcessStatus:
        pid = self._process.pid if self._process and self._state == "running" else 0
        return ProcessStatus(
            name=self.spec.name,
            state=self._state,
            pid=pid,
            since=self._since,
            restarts=self._restarts,
            port=self.spec.port,
            last_exit=self._last_exit,
            early_deaths=self.early_deaths,
        )

    @property
    def early_deaths(self) -> int:
        """How often in a row it died before it was healthy; 0 if it is healthy now."""
        healthy = self._state == "running" and time.time() - self._since >= HEALTHY_AFTER_S
        return 0 if healthy else self._early_deaths

    @property
    def wanted(self) -> bool:
        return not self._stop.is_set()

    async def stop(self) -> None:
        """End the process by its signal, and by SIGKILL after its grace period."""
        self._stop.set()
        await self._task

    async def _keep_running(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._last_exit = await self._run_once()
            except OSError as error:
                self._last_exit = f"could not be started: {error}"
            if self._stop.is_set():
                break
            lived_s = time.monotonic() - started
            self._early_deaths = 0 if lived_s >= HEALTHY_AFTER_S else self._early_deaths + 1
            self._enter("waiting")
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            ended = f"{self.spec.name} ended after {lived_s:.1f} s ({self._last_exit})"
            print(f"{now} {ended}", flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s(self._early_deaths))
            self._restarts += 1
        self._enter("stopped")

    async def _run_once(self) -> str:
        process = self._process = await self._spawn()
        self._enter("running")
        ended = asyncio.create_task(process.wait())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            _send(process.pid, self.spec.stop_signal)
            await asyncio.wait((ended,), timeout=self.spec.stop_grace_s)
        stopped.cancel()
        # Ends the processes that it started, and itself if it ignored the signal.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return _exit_text(await ended)

    async def _spawn(self) -> asyncio.subprocess.Process:
        spec = self.spec
        identity: dict[str, Any] = {}
        if spec.user is not None:
            identity = {"user": spec.user, "group": _group_of(spec.user), "extra_groups": ()}
        environment = {**self.inherited, **spec.environment, **mark(self._directory, spec.name)}
        with _log_file(self._directory / "logs" / f"{spec.name}.log") as log:
            return await asyncio.create_subprocess_exec(
                *spec.argv,
                cwd=spec.cwd,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **identity,
            )

    def _enter(self, state: str) -> None:
        self._state, self._since = state, time.time()


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"  # most real-time signals have no name


def _group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        # A frozen process would take its whole grace period.
        os.kill(pid, signal.SIGCONT)


def _log_file(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def rotate(log: Path) -> None:
    """Move what is in a log above ``LOG_BYTES`` to ``….log.1``, while its process writes on.

    The process has the file open, so it is copied and emptied. What is written between the last
    read and the emptying, microseconds, is lost.
    """
    if log.stat().st_size <= LOG_BYTES:
        return
    with log.open("rb+") as full, log.with_suffix(".log.1").open("wb") as former:
        shutil.copyfileobj(full, former)
        full.truncate(0)


async def _rotate_logs(folder: Path) -> None:
    while True:
        await asyncio.sleep(_ROTATE_EVERY_S)
        await asyncio.to_thread(_rotate_all, folder)


def _rotate_all(folder: Path) -> None:
    for log in folder.glob("*.log"):
        with contextlib.suppress(OSError):  # gone meanwhile, or the disk is full
            rotate(log)


class Supervisor:
    """The processes of one directory, and the socket for requests about them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: dict[str, Supervised] = {}
        self._end_requested = asyncio.Event()
        # One change at a time, so that a start and a stop do not mix.
        self._changing = asyncio.Lock()

    async def run(self, lifeline: Path | None) -> None:
        """Serve until an end is requested, then stop every process in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_requested.set)
        socket = socket_path(self._directory)
        socket.unlink(missing_ok=True)
        with _lifeline(lifeline, self._end_requested):
            server = await asyncio.start_unix_server(self._answer, socket, limit=1 << 20)
            rotating = asyncio.create_task(_rotate_logs(self._directory / "logs"))
            await self._end_requested.wait()
            await self.stop(list(self._children))
            rotating.cancel()
            server.close()
            socket.unlink(missing_ok=True)
            socket.parent.rmdir()

    def unlike(self, specs: list[ProcessSpec]) -> list[str]:
        """Return the names of those that do not run as described."""
        running = [child.spec for child in self._children.values() if child.wanted]
        return [spec.name for spec in specs if spec not in running]

    async def start(self, specs: list[ProcessSpec], inherited: Mapping[str, str]) -> None:
        """Start these in an environment, and restart those that run with another description.

        One that keeps dying is restarted too: what it dies of may be in its environment.
        """
        async with self._changing:
            for spec in specs:
                current = self._children.get(spec.name)
                if current and spec.name not in self.unlike([spec]) and not current.status.failing:
                    continue
                if current:
                    await current.stop()
                self._children[spec.name] = Supervised(spec, self._directory, inherited)

    async def stop(self, names: list[str]) -> None:
        """Stop these, the highest stage first, and all of one stage at once."""
        async with self._changing:
            children = [self._children[name] for name in names if name in self._children]
            for stage in sorted({child.spec.stage for child in children}, reverse=True):
                await asyncio.gather(
                    *(child.stop() for child in children if child.spec.stage == stage)
                )

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            request = json.loads(await reader.readline())
            answer = await self._handle(request)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _handle(self, request: dict[str, Any]) -> object:
        match request["do"]:
            case "start":
                specs = [ProcessSpec.from_json(spec) for spec in request["processes"]]
                await self.start(specs, request["environment"])
            case "unlike":
                return self.unlike([ProcessSpec.from_json(spec) for spec in request["processes"]])
            case "resume":
                for child in list(self._children.values()):
                    if not child.wanted and child.spec.name in request["names"]:
                        await self.start([child.spec], child.inherited)
            case "stop":
                await self.stop(request["names"])
            case "end":
                await self.stop(list(self._children))
                self._end_requested.set()
            case "status":
                return [asdict(child.status) for child in self._children.values()]
        return []


@contextlib.contextmanager
def _lifeline(path: Path | None, closed: asyncio.Event) -> Any:
    """Set ``closed`` once no process has the named pipe open for writing any more."""
    if path is None:
        yield
        return
    loop = asyncio.get_running_loop()
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        loop.add_reader(end, lambda: None if os.read(end, 64) else closed.set())
        yield
    finally:
        loop.remove_reader(end)
        os.close(end)


def main() -> None:
    """Supervise one directory; a second supervisor of the same directory ends at once."""
    parser = argparse.ArgumentParser(description="Keeps the processes of one directory running.")
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--lifeline", type=Path, help="a named pipe: ends when no process has it open"
    )
    arguments = parser.parse_args()
    # Never closed: held until this process ends.
    lock = os.open(arguments.directory / "supervisor.lock", os.O_CREAT | os.O_WRONLY, 0o600)
    if not _locked(lock):
        sys.exit("another supervisor has this directory")
    asyncio.run(_supervise(arguments.directory, arguments.lifeline))


async def _supervise(directory: Path, lifeline: Path | None) -> None:
    await Supervisor(directory).run(lifeline)


def _locked(lock: int) -> bool:
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)  # perhaps only `Control.is_up`, which holds it for a moment
        else:
            return True
    return False


if __name__ == "__main__":
    main()
