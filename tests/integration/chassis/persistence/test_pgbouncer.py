"""What docs/operations.md says of PgBouncer, where there is one on this machine."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from chassis.persistence import advisory_lock
from chassis.persistence.advisory_lock import LOCK_SESSION_SETTINGS
from chassis.persistence.database import SESSION_SETTINGS
from chassis.testing import eventually
from local_cluster.ports import free_port
from tests.integration.chassis.path import rows, settings_for
from tests.integration.chassis.persistence.test_connecting import (
    Connect,
    raise_partitions,
    the_locks_and_the_relay,
    the_migrations,
    the_pool,
    the_verification,
)
from verification.addresses import CannotVerify

Through = Callable[..., str]
PARAMETERS = ",".join({*LOCK_SESSION_SETTINGS, "lock_timeout"} - {"timezone"})


@contextmanager
def pgbouncer(program: str, database: str, **options: str) -> Iterator[str]:
    """Run PgBouncer before a database, and yield the database's URL through it."""
    url = make_url(database)
    through = url.set(port=free_port())
    values = {
        "listen_addr": "127.0.0.1",
        "listen_port": through.port,
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": "users",
        "pool_mode": "session",
    }
    lines = [
        "[databases]",
        f"* = host={url.host} port={url.port}",
        "[pgbouncer]",
        *(f"{name} = {value}" for name, value in (values | options).items()),
    ]
    with tempfile.TemporaryDirectory() as directory:
        # It refuses to be root.
        Path(directory).chmod(0o755)
        (Path(directory) / "users").write_text(f'"{url.username}" "{url.password}"\n')
        (Path(directory) / "it.ini").write_text("\n".join(lines))
        user = ["--user=nobody"] if os.geteuid() == 0 else []
        with subprocess.Popen([program, *user, "-q", "it.ini"], cwd=directory) as running:
            try:
                yield through.render_as_string(hide_password=False)
            finally:
                running.terminate()


@pytest.fixture
def through(database: str) -> Iterator[Through]:
    """Run PgBouncer with some options, and return the database's URL through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer here, so nothing is run through it")
    with ExitStack() as running:

        def start(**options: str) -> str:
            return running.enter_context(pgbouncer(program, database, **options))

        yield start


async def listens(url: str) -> None:
    parts = make_url(url)

    async def it_does() -> bool:
        _, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.close()
        return True

    await eventually(it_does, despite=(OSError,))


async def let_the_role_have(database: str, **settings: str) -> None:
    """Do as the page says, for this database only."""
    url = make_url(database)
    for name, value in settings.items():
        await rows(
            database,
            f"ALTER ROLE {url.username} IN DATABASE {url.database} SET {name} = '{value}'",
        )


@pytest.mark.parametrize("connect", [the_pool, the_locks_and_the_relay, the_verification])
async def test_it_refuses_the_parameters_of_a_session_that_it_was_not_told_to_ignore(
    through: Through, connect: Connect
) -> None:
    url = through()
    await listens(url)

    refused = (asyncpg.ProtocolViolationError, DBAPIError, CannotVerify)
    with pytest.raises(refused, match="unsupported startup parameter"):
        await connect(url)


async def test_in_session_mode_every_place_connects_and_has_the_settings_of_the_role(
    database: str, through: Through
) -> None:
    wanted = {**SESSION_SETTINGS, "lock_timeout": "5s", "idle_session_timeout": "6s"}
    del wanted["transaction_timeout"]  # it would end a long migration
    await let_the_role_have(database, **wanted)
    url = through(ignore_startup_parameters=PARAMETERS)
    await listens(url)

    for connect in (the_pool, the_locks_and_the_relay, the_migrations, raise_partitions):
        await connect(url)

    names = [name for name in wanted if not name.startswith("tcp_")]
    found = {
        name: (await rows(url, f"SELECT current_setting('{name}') AS is"))[0]["is"]
        for name in (*names, "synchronous_commit")
    }
    assert found == {**{name: wanted[name] for name in names}, "synchronous_commit": "on"}


async def test_in_session_mode_one_process_has_a_lock_until_its_connection_ends(
    through: Through,
) -> None:
    url = through(ignore_startup_parameters=PARAMETERS)
    await listens(url)
    first, second = [
        await advisory_lock.connect(settings_for(url, "127.0.0.1:1"), "test") for _ in range(2)
    ]

    taken = [await advisory_lock.try_lock(each, "name") for each in (first, second)]

    assert taken == [True, False]
    first.terminate()

    async def is_free() -> bool:
        return await advisory_lock.try_lock(second, "name")

    await eventually(is_free)
    await second.close()
