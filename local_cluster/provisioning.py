"""Makes what the services need to start: topics, schemas, a signing key, an operator."""

import asyncio
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from local_cluster.environment import inherited
from local_cluster.errors import ClusterError
from local_cluster.processes import mark
from local_cluster.settings import REPOSITORY
from local_cluster.together import ReportStep, together
from local_cluster.topology import OPERATOR, Topology
from services import DeclaredService
from services.secret_file import secret


class Provisioning:
    """Steps before the services; a step is done again only if its inputs have changed."""

    def __init__(self, directory: Path, topology: Topology, report: ReportStep) -> None:
        self._directory = directory
        self._topology = topology
        self._report = report

    @property
    def operator_password_file(self) -> Path:
        return self._directory / "operator-password"

    async def topics(self, bootstrap: str) -> None:
        """Make the missing topics of the catalogue."""
        # Beside Kafka's data, so that the mark is removed together with the topics.
        done = _DoneMark(
            self._directory / "kafka" / "topics.done",
            [
                REPOSITORY / "contracts" / "topics.py",
                REPOSITORY / "chassis" / "kafka" / "topics.py",
            ],
        )
        if not done.is_current():
            await self._run("topics", "chassis.kafka", "create-topics", "--bootstrap", bootstrap)
            done.write()

    async def schemas(self) -> None:
        """Migrate every database, and make a signing key and an operator."""
        await together(
            *(self._schema(service) for service in self._topology.services if service.database)
        )

    async def _schema(self, service: DeclaredService) -> None:
        migrations = [
            REPOSITORY / package / "migrations" for package in ("chassis", service.package)
        ]
        done = self._mark(f"{service.name}-schema", migrations)
        environment = self._topology.environment(service)
        if not done.is_current():
            await self._run(f"{service.name}-schema", service.module, "migrate", **environment)
            done.write()
        if service.name == "users":
            await together(self._signing_key(environment), self._operator(environment))

    async def _signing_key(self, environment: dict[str, str]) -> None:
        if not _has_files(Path(environment["USERS_KEYS_DIR"])):
            await self._run("signing-key", "users_service", "rotate-keys", **environment)

    async def _operator(self, environment: dict[str, str]) -> None:
        done = self._mark("operator", [])
        if not done.is_current():
            secret(self.operator_password_file)
            await self._run(
                "operator",
                "users_service",
                "create-operator",
                f"--username={OPERATOR}",
                "--email=operator@localhost.localdomain",
                f"--password-file={self.operator_password_file}",
                **environment,
            )
            done.write()

    def _mark(self, step: str, inputs: Iterable[Path]) -> "_DoneMark":
        return _DoneMark(self._directory / "postgres" / f"{step}.done", inputs)

    async def _run(self, step: str, module: str, *arguments: str, **environment: str) -> None:
        """Run a step; its output goes to a log of its own."""
        log = self._directory / "logs" / f"{step}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                cwd=REPOSITORY,
                env=inherited(self._directory) | environment | mark(self._directory, step),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            if await process.wait() != 0:
                lines = log.read_text(errors="replace").strip().splitlines() or ["(no output)"]
                raise ClusterError(f"{step} failed: {lines[-1]} (see {log})")
        self._report(step, "done")


def _has_files(folder: Path) -> bool:
    return any(folder.glob("*"))


class _DoneMark:
    """A file that records that a step was done, and a digest of its inputs."""

    def __init__(self, file: Path, inputs: Iterable[Path]) -> None:
        self._file = file
        digest = hashlib.sha256()
        for path in inputs:
            for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(source.read_bytes())
        self._digest = digest.hexdigest()

    def is_current(self) -> bool:
        return self._file.exists() and self._file.read_text() == self._digest

    def write(self) -> None:
        self._file.write_text(self._digest)
