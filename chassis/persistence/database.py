"""Connections to a service's own PostgreSQL; none can hold a lock for ever."""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import asyncpg
from sqlalchemy import Executable, Table, Text, cast, func, insert, text

from chassis.persistence import connecting
from chassis.persistence.statements import CompiledStatement, Values, compiled
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
# Longest waits: for a free connection of the pool, and for a server that has to roll back.
_ACQUIRE_TIMEOUT_S: Final = 10.0
_ROLLBACK_TIMEOUT_S: Final = 2.0
# The first byte of a jsonb value in PostgreSQL's binary format.
_JSONB_VERSION: Final = b"\x01"


class NoConnectionFree(Exception):
    """All connections of the pool were in use for ten seconds."""


class NotCommitted(Exception):
    """A transaction was rolled back at its COMMIT, since one of its statements had failed."""


class Row(asyncpg.Record):
    """A row of an answer. A column is an item, by its position or name, and an attribute.

    Its values are as asyncpg gives them, and JSON is decoded: an ``Enum`` column's is its name.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class WrongNumberOfRows(Exception):
    """An answer has no row, or several, where one was expected."""


class Result:
    """The answer to a statement: its rows, all in memory, and how many it returned or changed."""

    __slots__ = ("_count", "_rows")

    def __init__(self, rows: Sequence[Row], count: int | None) -> None:
        self._rows = rows
        self._count = count

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @property
    def rowcount(self) -> int:
        """How many rows were inserted, updated, deleted or returned; a text's are not known."""
        if self._count is None:
            raise TypeError("the rows that a text changes are not counted: let it return them")
        return self._count

    def all(self) -> Sequence[Row]:
        """Return the rows."""
        return self._rows

    def first(self) -> Row | None:
        """Return the first row, if there is one."""
        return self._rows[0] if self._rows else None

    def one_or_none(self) -> Row | None:
        """Return the only row; None: there is none.

        :raises WrongNumberOfRows: there are several
        """
        if len(self._rows) > 1:
            raise WrongNumberOfRows(f"{len(self._rows)} rows where one at most was expected")
        return self.first()

    def one(self) -> Row:
        """Return the only row.

        :raises WrongNumberOfRows: there is none, or several
        """
        row = self.one_or_none()
        if row is None:
            raise WrongNumberOfRows("no row where one was expected")
        return row

    def scalars(self) -> list[Any]:
        """Return the first column of each row."""
        return [row[0] for row in self._rows]

    def scalar_one(self) -> Any:
        """Return the first column of the only row.

        :raises WrongNumberOfRows: there is none, or several
        """
        return self.one()[0]


@dataclass(frozen=True, slots=True)
class Executed:
    """A statement that was carried out.

    :ivar values: of its parameters, by name; a COPY's and an ``executemany``'s for each row
    :ivar count: of rows that were inserted, updated, deleted or returned, or given to an
        ``executemany``; None: not known
    """

    clause: Executable
    sql: str
    values: Sequence[Values]
    count: int | None


Observer = Callable[[Executed], None]


class Connection:
    """A connection of the pool, for the time of a block.

    :ivar observers: called after each statement
    :ivar mark: by what this transaction is found later, once something has read it
    :ivar outbox_slot: as of its ``Database``
    :ivar written: the names of tables that this transaction wrote to, as far as it was said
    """

    __slots__ = ("_driver", "mark", "observers", "outbox_slot", "written")

    def __init__(
        self, driver: Any, observers: Sequence[Observer] = (), outbox_slot: str | None = None
    ) -> None:
        self._driver = driver
        self.observers = list(observers)
        self.outbox_slot = outbox_slot
        self.mark: Row | None = None
        self.written: set[str] = set()

    def wrote(self, table: Table) -> None:
        """Have those called after the commit who wait for new rows of a table."""
        self.written.add(table.name)

    async def execute(
        self, clause: Executable, parameters: Values | Sequence[Values] = ()
    ) -> Result:
        """Carry out a statement.

        :param parameters: the values of its parameters by name, or such for each row to write
        :raises asyncpg.PostgresError: the server refused it
        :raises Exception: the connection is lost (``is_connection_lost``)
        """
        if not isinstance(parameters, Mapping):
            if parameters:
                return await self._execute_many(clause, parameters)
            parameters = {}
        statement = compiled(clause, list(parameters))
        arguments = statement.arguments(parameters)
        rows: Sequence[Row] = ()
        count: int | None
        if statement.returns_rows:
            rows = await self._driver.fetch(statement.sql, *arguments)
            count = len(rows) if statement.counts else None
        else:
            count = _count_in(await self._driver.execute(statement.sql, *arguments))
        if self.observers:
            self._tell(clause, statement, [parameters], count)
        return Result(rows, count)

    async def _execute_many(self, clause: Executable, parameters: Sequence[Values]) -> Result:
        statement = compiled(clause, list(parameters[0]), many=True)
        arguments = [*map(statement.arguments, parameters)]
        writing = asyncio.ensure_future(self._driver.executemany(statement.sql, arguments))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The driver loses a cancellation that comes while it waits to write.
            _terminate(self._driver)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            raise
        if self.observers:
            # The driver does not say what it did.
            self._tell(clause, statement, parameters, len(parameters))
        return Result((), None)

    async def scalar(self, clause: Executable, parameters: Values | None = None) -> Any:
        """Return the first column of the first row; None: there is no row."""
        row = (await self.execute(clause, parameters or {})).first()
        return None if row is None else row[0]

    async def scalars(self, clause: Executable, parameters: Values | None = None) -> list[Any]:
        """Return the first column of each row."""
        return (await self.execute(clause, parameters or {})).scalars()

    async def copy(
        self, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert rows by COPY: faster than any INSERT, but it can't leave out existing rows."""
        if not rows:
            return
        await self._driver.copy_records_to_table(table.name, columns=columns, records=rows)
        if self.observers:
            values = [dict(zip(columns, row, strict=True)) for row in rows]
            executed = Executed(insert(table), f"COPY {table.name}", values, len(rows))
            for observer in self.observers:
                observer(executed)

    @asynccontextmanager
    async def begin_nested(self) -> AsyncIterator[None]:
        """Set a savepoint for the block, and go back to it where the block raises.

        A block that is cancelled leaves that to its transaction, which is rolled back.
        """
        await self._driver.execute("SAVEPOINT nested")
        try:
            yield
        except Exception:
            await _undo(self._driver, "ROLLBACK TO SAVEPOINT nested; RELEASE SAVEPOINT nested")
            raise
        await self._driver.execute("RELEASE SAVEPOINT nested")

    def _tell(
        self,
        clause: Executable,
        statement: CompiledStatement,
        parameters: Sequence[Values],
        count: int | None,
    ) -> None:
        executed = Executed(clause, statement.sql, [*map(statement.values, parameters)], count)
        for observer in self.observers:
            observer(executed)


class Database:
    """A pool of at most ``pool_size`` connections to ``postgresql://…``.

    It connects later, when a connection is needed. A connection that died in the pool is replaced
    when it is next taken, so a restart of the server causes no error.

    :ivar observers: called after each statement on any connection that is taken from now on
    """

    def __init__(
        self, url: str, *, pool_size: int, application_name: str, outbox_slot: str | None = None
    ) -> None:
        """:param outbox_slot: the slot through which the outbox is published; None: by the relay"""
        self._url = url
        self._pool_size = pool_size
        self._application_name = application_name
        self._outbox_slot = outbox_slot
        self._pool: Any = None
        self._closed = False
        self.observers: list[Observer] = []
        self._listeners: dict[str, list[Callable[[], None]]] = defaultdict(list)

    def on_commit(self, table: Table, listener: Callable[[], None]) -> None:
        """Call a function after each commit of a transaction that said it wrote to a table."""
        self._listeners[table.name].append(listener)

    def committed(self, connection: Connection) -> None:
        """Call those who wait for what a transaction wrote."""
        for name in connection.written:
            for listener in self._listeners.get(name, ()):
                listener()

    @asynccontextmanager
    async def connect(self, *, ends_at_s: float | None = None) -> AsyncIterator[Connection]:
        """Take a connection for the block. Each statement is a transaction of its own.

        :param ends_at_s: by the loop's clock; if the block, or what follows it, still waits for
            the server then, the connection is ended
        :raises NoConnectionFree: none was in time
        :raises Exception: the server can't be reached (``is_away``), or refuses the login
        """
        pool = await self._opened()
        driver = await self._acquire(pool)
        end = None
        if ends_at_s is not None:
            end = asyncio.get_running_loop().call_at(ends_at_s, _terminate, driver)
        try:
            yield Connection(driver, self.observers, self._outbox_slot)
        finally:
            try:
                # Where that fails the connection is terminated, and a new one takes its place.
                with suppress(Exception):
                    await pool.release(driver, timeout=_ROLLBACK_TIMEOUT_S)
            finally:
                if end is not None:
                    end.cancel()

    @asynccontextmanager
    async def begin(self, *, ends_at_s: float | None = None) -> AsyncIterator[Connection]:
        """Take a connection for one transaction: committed at the end, or rolled back on an error.

        :param ends_at_s: as ``connect``
        :raises NotCommitted: a statement had failed, and the block went on all the same
        :raises Exception: as ``connect``, and what COMMIT raises
        """
        async with self.connect(ends_at_s=ends_at_s) as connection:
            driver = connection._driver  # noqa: SLF001 - of the same module
            try:
                await driver.execute("BEGIN")
                yield connection
            except BaseException:
                await _undo(driver, "ROLLBACK")
                raise
            # To COMMIT a failed transaction is no error for PostgreSQL: it says what it did.
            if await driver.execute("COMMIT") != "COMMIT":
                raise NotCommitted("a statement failed, and its error was not raised")
            self.committed(connection)

    @asynccontextmanager
    async def begin_rolled_back(self) -> AsyncIterator[Connection]:
        """Take a connection for one transaction that is rolled back at the end, whatever it did.

        :raises Exception: as ``connect``
        """
        async with self.connect() as connection:
            driver = connection._driver  # noqa: SLF001 - of the same module
            try:
                await driver.execute("BEGIN")
                yield connection
            finally:
                await _undo(driver, "ROLLBACK")

    @property
    def in_use(self) -> int:
        """How many connections are taken now."""
        return 0 if self._pool is None else self._pool.get_size() - self._pool.get_idle_size()

    async def close(self) -> None:
        """Close the connections; those that are still in use after two seconds are ended.

        No connection can be taken any more.
        """
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ROLLBACK_TIMEOUT_S):
                    await pool.close()

    async def _opened(self) -> Any:
        if self._closed:
            raise RuntimeError("the pool of connections is closed")
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                connect=self._open,
                min_size=0,
                max_size=self._pool_size,
                max_queries=sys.maxsize,
                max_inactive_connection_lifetime=0,
                reset=_keep_session,
            )
            await self._pool  # it only becomes ready: nothing connects, and nothing waits
        return self._pool

    async def _acquire(self, pool: Any) -> Any:
        timeout = asyncio.timeout(_ACQUIRE_TIMEOUT_S)
        try:
            async with timeout:
                return await pool.acquire()
        except TimeoutError as error:
            if timeout.expired():
                raise NoConnectionFree(f"none of {self._pool_size} connections is free") from error
            raise

    async def _open(self, *_: object, **__: object) -> "asyncpg.Connection":
        connection = await connecting.connect(
            self._url,
            application_name=self._application_name,
            settings=SESSION_SETTINGS | {"lock_timeout": _LOCK_TIMEOUT},
            command_timeout_s=_STATEMENT_TIMEOUT_S,
            record_class=Row,
        )
        try:
            for name, first in (("json", b""), ("jsonb", _JSONB_VERSION)):
                await connection.set_type_codec(
                    name,
                    schema="pg_catalog",
                    encoder=partial(_json_bytes, first),
                    decoder=partial(_json_value, len(first)),
                    format="binary",
                )
        except BaseException:
            connection.terminate()
            raise
        return connection


def _json_bytes(first: bytes, value: str) -> bytes:
    return first + value.encode()


def _json_value(skipped: int, value: bytes) -> Any:
    return json.loads(value[skipped:])


async def _keep_session(_connection: object) -> None:
    """Reset nothing when a connection returns: no session is ever changed but by its URL."""


async def _undo(driver: Any, statement: str) -> None:
    """Roll back, or end a connection that does not answer."""
    try:
        async with asyncio.timeout(_ROLLBACK_TIMEOUT_S):
            await driver.execute(statement)
    except BaseException as error:
        _terminate(driver)
        if not isinstance(error, Exception):
            raise


def _terminate(driver: Any) -> None:
    with suppress(asyncpg.InterfaceError):  # it is not the pool's any more
        driver.terminate()


def _count_in(status: str) -> int:
    """Return the number of rows in a command's tag, such as ``INSERT 0 5``."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdecimal() else 0


@asynccontextmanager
async def pool(settings: ServiceSettings, application_name: str) -> AsyncIterator[Database]:
    """Open a pool of connections for the block; PostgreSQL shows them by this name."""
    database = Database(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        application_name=application_name,
        outbox_slot=settings.outbox_slot,
    )
    try:
        yield database
    finally:
        await database.close()


_SELECT_1: Final = text("SELECT 1")

# By this a transaction is found when its COMMIT got no answer. A server that crashed may give the
# id of a lost transaction to another one, but then the reset time of its statistics is another.
MARK: Final = (
    cast(func.pg_current_xact_id_if_assigned(), Text).label("id"),
    cast(func.pg_stat_get_bgwriter_stat_reset_time(), Text).label("life"),
)


async def ping(database: Database) -> None:
    """Check that the database answers.

    :raises Exception: it does not
    """
    async with database.connect() as connection:
        await connection.execute(_SELECT_1)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error (PostgreSQL manual, appendix A), if it has one."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


# Admin shutdown, crash shutdown, cannot connect now, too many connections, and the time-outs of
# idle-in-transaction, transaction and idle session.
_SESSION_ENDED: Final = frozenset({"57P01", "57P02", "57P03", "53300", "25P03", "25P04", "57P05"})
_CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
_READ_ONLY: Final = "25006"


def is_connection_lost(error: BaseException) -> bool:
    """Return whether there is no session any more; the statement may have been carried out."""
    state = sqlstate_of(error)
    if state is not None:
        return state.startswith("08") or state in _SESSION_ENDED
    if isinstance(error, asyncpg.InterfaceError):
        # The driver raises it for a connection that it can't use any more, and, as a ValueError,
        # for a value that does not fit its parameter.
        return not isinstance(error, ValueError)
    return isinstance(error, OSError | asyncpg.InternalClientError)


def is_conflict(error: BaseException) -> bool:
    """Return whether the transaction conflicted with another one.

    That is a serialization failure, a deadlock, a lock that was not free in time, or a migration
    that changed the tables of a statement since it was prepared: it is prepared again.
    """
    return isinstance(error, asyncpg.InvalidCachedStatementError) or (
        sqlstate_of(error) in _CONFLICTS
    )


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
