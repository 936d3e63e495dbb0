"""Two PostgreSQL servers: the second is a synchronous standby of the first."""

import asyncio
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import asyncpg

from chassis.testing import eventually
from local_cluster.ports import free_port
from local_cluster.postgres import Postgres
from local_cluster.settings import Settings

_NAME: Final = "second"


class _Server:
    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        directory.mkdir(exist_ok=True)
        self.home = directory / "postgres"
        self.cluster = Postgres(directory, free_port(), Settings().cache_directory, settings)
        self._log = directory / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        spec = self.cluster.spec()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                spec.argv, cwd=spec.cwd, stdout=log, stderr=log, **_as(spec.user)
            )

    def kill(self) -> None:
        """End it at once, with all of its sessions."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    async def connect(self) -> "asyncpg.Connection":
        return await asyncpg.connect(self.cluster.superuser_url, timeout=5)

    async def connect_to(self, login: str) -> "asyncpg.Connection":
        return await asyncpg.connect(self.cluster.url(login), timeout=5)

    async def execute(self, *statements: str) -> None:
        connection = await self.connect()
        for each in statements:
            await connection.execute(each)
        await connection.close()


class PostgresPair:
    """The pair; a commit is answered when both have it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.first = _Server(directory / "first", {"fsync": "off"})
        self.second = _Server(directory / "second", {"fsync": "off"})

    async def start(self, *databases: str) -> None:
        """Start both, with these databases."""
        await asyncio.to_thread(self.first.cluster.prepare)
        self.first.start()
        await self.first.cluster.create_databases(databases)
        await asyncio.to_thread(self._copy)
        self.second.start()
        # Set after the copy: the second server is to have no standby of its own.
        await self.first.execute(
            f"ALTER SYSTEM SET synchronous_standby_names = '{_NAME}'", "SELECT pg_reload_conf()"
        )
        await eventually(self._is_synchronous, within_s=30)

    async def promote(self) -> None:
        """Make the second server take writes."""
        await self.second.execute("SELECT pg_promote(wait => true)")

    def kill(self) -> None:
        self.first.kill()
        self.second.kill()

    def url(self, login: str) -> str:
        """Return the URL of a login's database on both, the standby before the first."""
        whole = self.first.cluster.url(login)
        first = f"127.0.0.1:{self.first.cluster.port}"
        return whole.replace(first, f"127.0.0.1:{self.second.cluster.port},{first}")

    def _copy(self) -> None:
        first, second = self.first.cluster, self.second.cluster
        shutil.copytree(first._secrets, second._secrets)
        self.second.home.mkdir()
        second._chown(self.second.home)
        connection = f"{first.superuser_url}?application_name={_NAME}"
        subprocess.run(
            [
                second._programs() / "pg_basebackup",
                "-D",
                "data",
                "-R",
                "-d",
                connection,
                "-c",
                "fast",
            ],
            cwd=self.second.home,
            check=True,
            capture_output=True,
            **_as(second._user),
        )

    async def _is_synchronous(self) -> bool:
        connection = await self.first.connect()
        try:
            return bool(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
                )
            )
        finally:
            await connection.close()


def _as(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": ()}
