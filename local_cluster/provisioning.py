"""What has to be there before the services start: topics, schemas, a signing key, an operator."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from local_cluster.credentials import secret
from local_cluster.errors import ClusterError
from local_cluster.processes import mark
from local_cluster.settings import REPOSITORY
from local_cluster.together import Report, together
from local_cluster.topology import OPERATOR, Service, Topology


class Provisioning:
    """The steps that end by themselves; one whose inputs are as they were is not taken again."""

    def __init__(self, directory: Path, topology: Topology, report: Report) -> None:
        self._directory = directory
        self._topology = topology
        self._report = report

    @property
    def operator_password_file(self) -> Path:
        return self._directory / "operator-password"

    async def topics(self, bootstrap: str) -> None:
        """Have every topic of the catalogue."""
        # Beside Kafka's data, so that the note goes when the topics do.
        note = _Note(
            self._directory / "kafka" / "topics.done",
            [
                REPOSITORY / "contracts" / "topics.py",
                REPOSITORY / "chassis" / "kafka" / "topics.py",
            ],
        )
        if not note.holds():
            await self._run("topics", "chassis.kafka", "create-topics", "--bootstrap", bootstrap)
            note.write()

    async def schemas(self) -> None:
        """Have every database at its newest schema, and an operator who can sign in."""
        await together(
            *(self._schema(service) for service in self._topology.services if service.database)
        )

    async def _schema(self, service: Service) -> None:
        migrations = [
            REPOSITORY / package / "migrations" for package in ("chassis", service.module)
        ]
        note = self._note(f"{service.name}-schema", migrations)
        environment = self._topology.environment(service)
        if not note.holds():
            await self._run(f"{service.name}-schema", service.module, "migrate", **environment)
            note.write()
        if service.name == "users":
            await together(self._signing_key(environment), self._operator(environment))

    async def _signing_key(self, environment: dict[str, str]) -> None:
        if not _holds_anything(Path(environment["USERS_KEYS_DIR"])):
            await self._run("signing-key", "users_service", "rotate-keys", **environment)

    async def _operator(self, environment: dict[str, str]) -> None:
        note = self._note("operator", [])
        if not note.holds():
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
            note.write()

    def _note(self, what: str, inputs: Iterable[Path]) -> "_Note":
        return _Note(self._directory / "postgres" / f"{what}.done", inputs)

    async def _run(self, what: str, module: str, *arguments: str, **environment: str) -> None:
        """Run a step; what it says is in a log of its own."""
        log = self._directory / "logs" / f"{what}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                cwd=REPOSITORY,
                env=os.environ | environment | mark(self._directory, what),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            if await process.wait() != 0:
                said = log.read_text(errors="replace").strip().splitlines() or ["(nothing)"]
                raise ClusterError(f"{what} failed: {said[-1]} (all of it: {log})")
        self._report(what, "done")


def _holds_anything(folder: Path) -> bool:
    return any(folder.glob("*"))


class _Note:
    """That a step was taken, and on which inputs."""

    def __init__(self, file: Path, inputs: Iterable[Path]) -> None:
        self._file = file
        digest = hashlib.sha256()
        for path in inputs:
            for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(source.read_bytes())
        self._digest = digest.hexdigest()

    def holds(self) -> bool:
        return self._file.exists() and self._file.read_text() == self._digest

    def write(self) -> None:
        self._file.write_text(self._digest)
