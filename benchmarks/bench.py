"""What figures are measured on: a cluster of their own, new databases and topics, processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import psutil

from chassis.migrations import upgrade
from local_cluster.testing import RunningCluster

PARTITIONS: Final = 8
_STOP_WITHIN_S: Final = 30.0


class ProgramFailed(Exception):
    """A measured process ended too early; the message ends with the end of its log."""


@dataclass
class Program:
    """A process that is measured."""

    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def processor_s(self) -> float:
        """Processor time used until now, in seconds."""
        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)

    @property
    def resident_mb(self) -> float:
        """Memory held now, in 10^6 bytes."""
        return float(psutil.Process(self.pid).memory_info().rss / 1e6)

    def check(self) -> None:
        """:raises ProgramFailed: it has ended"""
        if self.process.returncode is not None:
            log = self.log.read_text(errors="replace")[-2_000:]
            raise ProgramFailed(f"exit code {self.process.returncode}: …{log}")

    async def line(self) -> str:
        """Return the next line of its standard output.

        :raises ProgramFailed: it has ended
        """
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            await self.process.wait()
            self.check()
        return line.decode().rstrip("\n")


class Bench:
    """What the sides of figures run on."""

    def __init__(
        self, cluster: RunningCluster, directory: Path, *, full: bool, say: Callable[[str], None]
    ) -> None:
        """:param say: prints how far the run is"""
        self.cluster = cluster
        self.directory = directory
        self.full = full
        self.say = say
        self._numbers = count(1)
        self._templates: dict[str, str] = {}

    def name(self, stem: str) -> str:
        """Return an unused name for a topic, a database or a consumer group."""
        return f"{stem}-{next(self._numbers)}"

    async def database(self, service_module: str | None = None) -> str:
        """Make a database, with the tables of a service (``audit_service``), and return its URL."""
        template = "template1"
        if service_module is not None:
            template = self._templates.get(service_module) or await self._migrated(service_module)
        name = self.name("bench").replace("-", "_")
        return await asyncio.to_thread(self.cluster.create_database, name, template)

    async def _migrated(self, service_module: str) -> str:
        # Later ones are copies, which are faster than migrations.
        name = self.name("template").replace("-", "_")
        url = await asyncio.to_thread(self.cluster.create_database, name)
        await upgrade(service_module, url)
        self._templates[service_module] = name
        return name

    def environment(self, service: str, **settings: str) -> dict[str, str]:
        """Return the environment of a service's process here, with these settings overridden.

        ``environment("audit", database_url=url, roles="agents")``
        """
        prefix = service.upper().replace("-", "_")
        own = {f"{prefix}_{name.upper()}": value for name, value in settings.items()}
        return self.cluster.environment(service) | own

    @asynccontextmanager
    async def program(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        python: str = sys.executable,
        name: str | None = None,
    ) -> AsyncIterator[Program]:
        """Run ``python -m argv…`` during the block; then stop it, and wait until it has ended.

        ``Program.line`` reads its standard output; its standard error goes to its log.
        """
        async with self.command([python, "-m", *argv], environment, name=name or argv[0]) as it:
            yield it

    @asynccontextmanager
    async def command(
        self, argv: Sequence[str], environment: Mapping[str, str] | None = None, *, name: str
    ) -> AsyncIterator[Program]:
        """Run any command during the block, as ``program`` does."""
        log = self.directory / "logs" / f"{self.name(name)}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=err,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )
            try:
                yield Program(process, log)
            finally:
                await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_WITHIN_S):
                    await process.communicate()
