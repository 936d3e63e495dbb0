"""A name that one process at a time can hold: a session advisory lock on its own connection."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg
import structlog

from chassis.persistence import connecting
from chassis.persistence.database import SESSION_SETTINGS, is_away
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

_TRY_EVERY_S: Final = 0.5
_KEEPALIVE_EVERY_S: Final = 1.0
_LOST_AFTER_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 5.0
LOCK_SESSION_SETTINGS: Final = SESSION_SETTINGS | {
    # The server ends the session of a holder that is frozen, and another process takes over.
    "idle_session_timeout": "6s",
    # On such a session the relay deletes rows that Kafka has, and sets aside rows that it refuses.
    # When a crash of the server undoes that, the relay does it again and consumers drop the
    # repeats. So no commit has to wait for the disk.
    "synchronous_commit": "off",
}


async def connect(settings: ServiceSettings, application_name: str) -> "asyncpg.Connection":
    """Open a connection outside of any pool.

    :raises Exception: no server answers, or it is starting (``database.is_away``)
    """
    return await connecting.connect(
        settings.database_url.get_secret_value(),
        application_name=application_name,
        settings=LOCK_SESSION_SETTINGS,
        command_timeout_s=_COMMAND_TIMEOUT_S,
    )


async def try_lock(connection: "asyncpg.Connection", name: str) -> bool:
    """Take the lock of that name if it is free; it is held as long as the connection lives."""
    return bool(
        await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", name)
    )


class AdvisoryLock:
    """Holds a name while a block runs, and takes it again after its connection was lost."""

    def __init__(self, settings: ServiceSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._refused_since: float | None = None

    def is_held(self) -> bool:
        """Return false when another process has held the name for seconds.

        While the database is away no process can take it, so then it counts as held.
        """
        since = self._refused_since
        return since is None or time.monotonic() - since < _LOST_AFTER_S

    def is_taken(self) -> bool:
        """Return whether another process had the name when it was last asked for."""
        return self._refused_since is not None

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait until the name is free, and hold it while the block runs."""
        keeping = asyncio.create_task(self._keep(await self._take()))
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    async def _take(self) -> "asyncpg.Connection":
        connection = await self._try_to_take()
        if connection is None and self._refused_since is not None:
            log.warning("name-taken", name=self._name, reason="another process has this name")
        elif connection is None:
            log.info("waiting", reason="the database is away")
        while connection is None:
            await asyncio.sleep(_TRY_EVERY_S)
            connection = await self._try_to_take()
        return connection

    async def _try_to_take(self) -> "asyncpg.Connection | None":
        connection, taken = None, False
        try:
            connection = await connect(self._settings, self._name)
            taken = await try_lock(connection, self._name)
            self._refused_since = None if taken else self._refused_since or time.monotonic()
        except Exception as error:
            if not is_away(error):
                raise
        finally:
            if connection is not None and not taken:
                connection.terminate()
        return connection if taken else None

    async def _keep(self, connection: "asyncpg.Connection") -> None:
        """Keep the session from idling; take the name again after the connection was lost."""
        try:
            while True:
                await asyncio.sleep(_KEEPALIVE_EVERY_S)
                try:
                    await connection.execute("SELECT 1")
                except Exception as error:
                    if not is_away(error):
                        raise
                    connection.terminate()
                    connection = await self._take()
        finally:
            connection.terminate()
