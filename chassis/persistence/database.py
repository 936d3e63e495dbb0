"""Connections to a service's own PostgreSQL; none can hold a lock for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from chassis.persistence import connecting
from chassis.settings import ServiceSettings

# A process that is frozen or disconnected keeps its locks until the server ends its session; these
# settings bound that. Idle-in-transaction is below the consumers' session time-out (6 s), so that
# a frozen worker holds no lock any more when Kafka has assigned its partitions to another one.
SESSION_SETTINGS: Final = {
    "idle_in_transaction_session_timeout": "4s",
    "transaction_timeout": "60s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    "timezone": "UTC",
}

# The server ends the wait also where the client is gone; whoever waits has its own deadline.
_LOCK_TIMEOUT: Final = "5s"
_STATEMENT_TIMEOUT_S: Final = 60.0


def create_engine(database_url: str, *, pool_size: int, application_name: str) -> AsyncEngine:
    """Return a pool of at most ``pool_size`` connections to ``postgresql://…``.

    It connects later, when a connection is needed. A connection that died in the pool is replaced
    when it is next taken, so a restart of the server causes no error.
    """

    async def connect() -> "asyncpg.Connection":
        return await connecting.connect(
            database_url,
            application_name=application_name,
            settings=SESSION_SETTINGS | {"lock_timeout": _LOCK_TIMEOUT},
            command_timeout_s=_STATEMENT_TIMEOUT_S,
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        hide_parameters=True,  # the text of an error must not contain what clients sent
    )
    event.listen(engine.sync_engine, "checkout", _refuse_if_closed)
    return engine


def _refuse_if_closed(connection: AsyncAdapt_asyncpg_connection, *_: object) -> None:
    """Have the pool replace a connection that the driver knows to be closed.

    SQLAlchemy's ``pool_pre_ping`` would ask the server instead: three round trips each time.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError


@asynccontextmanager
async def pool(settings: ServiceSettings, application_name: str) -> AsyncIterator[AsyncEngine]:
    """Open a pool of connections for the block; PostgreSQL shows them by this name."""
    engine = create_engine(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        application_name=application_name,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def terminated_at(connection: AsyncConnection, time_s: float) -> AsyncIterator[None]:
    """End the connection at a time of the loop's clock, if the block still runs then.

    A cancelled statement waits two seconds for a server that does not answer; this ends the wait.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    end = asyncio.get_running_loop().call_at(time_s, driver.terminate)
    try:
        yield
    finally:
        end.cancel()


async def ping(engine: AsyncEngine) -> None:
    """Check that the database answers.

    :raises Exception: it does not
    """
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error (PostgreSQL manual, appendix A), if it has one."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(origin, "sqlstate", None)
    return state if isinstance(state, str) else None


def constraint_of(error: DBAPIError) -> str | None:
    """Return the name of the constraint that was violated, if one was."""
    cause = getattr(error.orig, "__cause__", None)
    name = getattr(cause, "constraint_name", None)
    return name if isinstance(name, str) else None


# Admin shutdown, crash shutdown, cannot connect now, too many connections, and the time-outs of
# idle-in-transaction, transaction and idle session.
_SESSION_ENDED: Final = frozenset({"57P01", "57P02", "57P03", "53300", "25P03", "25P04", "57P05"})
_CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
_READ_ONLY: Final = "25006"


def is_connection_lost(error: BaseException) -> bool:
    """Return whether there is no session any more; the statement may have been carried out."""
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return True  # the driver raises the last two for a connection that it can't use any more
    state = sqlstate_of(error)
    if state is not None:
        # Also while connecting, where SQLAlchemy does not wrap the driver's errors.
        return state.startswith("08") or state in _SESSION_ENDED
    if not isinstance(error, DBAPIError):
        return False
    # The driver's own errors (a closed connection, a closed transport) have no SQLSTATE.
    return error.connection_invalidated or isinstance(
        getattr(error.orig, "__cause__", None), OSError | asyncpg.InternalClientError
    )


def is_conflict(error: BaseException) -> bool:
    """Return whether the transaction conflicted with another one.

    That is a serialization failure, a deadlock, or a lock that was not free in time.
    """
    return sqlstate_of(error) in _CONFLICTS


def is_unwell(error: BaseException) -> bool:
    """Return whether the server answers but can't work now: full, out of memory, a standby."""
    state = sqlstate_of(error)
    return state is not None and (state.startswith("53") or state == _READ_ONLY)


def is_away(error: BaseException) -> bool:
    """Return whether to wait for the database: its connection is lost, or it can't work now."""
    return is_connection_lost(error) or is_unwell(error)


def is_worth_retrying(error: BaseException) -> bool:
    """Return whether the same work may succeed when it runs again from its start."""
    return is_conflict(error) or is_unwell(error)
