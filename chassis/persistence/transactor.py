"""Runs a use case in one unit of work: completely and once, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import select, text

from chassis import telemetry
from chassis.backoff import Backoff
from chassis.domain import DomainError, Kind
from chassis.failpoints import failpoint
from chassis.persistence.database import (
    MARK,
    Connection,
    Database,
    NoConnectionFree,
    Row,
    is_away,
    is_connection_lost,
    is_worth_retrying,
    sqlstate_of,
)

log = structlog.get_logger(__name__)


class StaleAggregate(Exception):
    """Another transaction changed aggregates since they were loaded; begin again from the start.

    :ivar versions: the version in which each of them was loaded, by id; empty: not known
    """

    def __init__(self, table: str = "", versions: Mapping[UUID, int] | None = None) -> None:
        super().__init__(table)
        self.versions = dict(versions or {})


class NotInTime(DomainError):
    """A command was not completed by its deadline; it changed nothing."""

    kind, code = Kind.UNAVAILABLE, "not-in-time"


class OutcomeUnknown(DomainError):
    """The connection was lost during COMMIT, and the database can't report the outcome."""

    kind, code = Kind.UNAVAILABLE, "outcome-unknown"


class Work(Protocol):
    """An open transaction with the repositories of one service.

    ``save`` buffers what it is given until ``flush``, which writes each table once.
    """

    async def flush(self) -> None: ...


W = TypeVar("W", bound=Work)
T = TypeVar("T")
W_co = TypeVar("W_co", bound=Work, covariant=True)


class Transact(Protocol[W_co]):
    """Run a body in a transaction: the transactor, or a fake of it."""

    async def __call__(self, body: Callable[[W_co], Awaitable[T]], /) -> T: ...


# How much longer a session may take to roll back after the deadline.
_GRACE_S: Final = 0.5
_BACKOFF: Final = Backoff(first_s=0.01, longest_s=0.5)

_MARK: Final = select(*MARK)
_ASK: Final = text(
    "SELECT pg_xact_status(CAST(:id AS text)::xid8) AS status,"
    " pg_stat_get_bgwriter_stat_reset_time()::text AS life"
)
_ID_IN_THE_FUTURE: Final = "22023"


class Transactor(Generic[W]):
    """Runs commands in transactions, each of them once.

    They are READ COMMITTED, and in effect serializable: repositories lock what they load
    (``docs/decisions/0014``). A body that failed on a conflict, a stale aggregate or a connection
    lost before COMMIT runs again from its start, so it holds no effect outside the database.

    :param deadline_s: how long a command may take with all its attempts
    """

    def __init__(
        self,
        database: Database,
        open_work: Callable[[Connection], W],
        *,
        deadline_s: float = 6.0,
    ) -> None:
        self._database = database
        self._open_work = open_work
        self._deadline_s = deadline_s

    async def __call__(self, body: Callable[[W], Awaitable[T]], /) -> T:
        """Run the body, write what it saved, commit, and return what the body returned.

        :raises NotInTime: it was not completed by the deadline; nothing was committed
        :raises OutcomeUnknown: the connection was lost during COMMIT, and the database could not
            report the outcome by the deadline
        :raises Exception: the body's own; nothing was committed
        """
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        attempt = 1
        while True:
            try:
                result = await self._run_once(body, deadline)
            except Exception as error:
                if not _may_run_again(error):
                    raise
                pause_s = _BACKOFF.pause_s(attempt)
                if asyncio.get_running_loop().time() + pause_s >= deadline:
                    if is_away(error):
                        raise
                    raise self._not_in_time() from error
                log.info("transaction-retried", attempt=attempt, error=type(error).__name__)
                telemetry.transaction_retries.inc()
            else:
                return result
            await asyncio.sleep(pause_s)
            attempt += 1

    async def _run_once(self, body: Callable[[W], Awaitable[T]], deadline: float) -> T:
        committing: tuple[Connection, Row, T] | None = None
        timeout = asyncio.timeout_at(deadline)
        try:
            async with (
                timeout,
                self._database.begin(ends_at_s=deadline + _GRACE_S) as connection,
            ):
                work = self._open_work(connection)
                result = await body(work)
                await work.flush()
                # The outbox has read it, unless nothing is published.
                mark = connection.mark or (await connection.execute(_MARK)).one()
                await failpoint("command.before-commit")
                committing = connection, mark, result
        except Exception as error:
            if committing is None or committing[1].id is None:
                if timeout.expired():
                    raise self._not_in_time() from error
                raise
            connection, mark, result = committing
            if not timeout.expired() and not is_connection_lost(error):
                raise
            lost = error
        else:
            await failpoint("command.after-commit")
            return result
        # Outside of the block, where the lost connection took a place of the pool: after a restart
        # of the server many commands ask at once.
        log.warning("commit-unanswered", transaction_id=mark.id)
        if not await self._was_committed(mark, deadline):
            raise lost
        self._database.committed(connection)
        return result

    def _not_in_time(self) -> NotInTime:
        return NotInTime(
            f"The request could not be completed within {self._deadline_s:g} s, and changed"
            " nothing. Send it again."
        )

    async def _was_committed(self, mark: Row, deadline: float) -> bool:
        """Ask the database for the outcome of a transaction, until it answers.

        :raises OutcomeUnknown: it did not answer in time, or has lost the outcome in a crash
        """
        attempt = 0
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline + _GRACE_S):
                while True:
                    attempt += 1
                    answer = await self._ask(str(mark.id))
                    if answer is not None:
                        status, life = answer
                        if life == mark.life and status == "committed":
                            return True
                        if status == "aborted" or (life != mark.life and status == "in progress"):
                            return False
                        if life != mark.life:
                            break  # maybe another transaction that got the same id
                    await asyncio.sleep(_BACKOFF.pause_s(attempt))
        raise OutcomeUnknown(
            "The database went away during the commit: the change is either complete or absent. "
            "Repeat the request with the same Idempotency-Key to find out."
        )

    async def _ask(self, transaction_id: str) -> tuple[str, str] | None:
        """Return the status of a transaction and the server's life; None: no answer."""
        try:
            async with self._database.connect() as connection:
                found = (await connection.execute(_ASK, {"id": transaction_id})).one()
        except Exception as error:
            if sqlstate_of(error) == _ID_IN_THE_FUTURE:
                # The server crashed before it wrote anything of that transaction.
                return "aborted", ""
            if not is_connection_lost(error) and not isinstance(error, NoConnectionFree):
                raise
        else:
            return found.status, found.life
        return None

    @asynccontextmanager
    async def query(self) -> AsyncIterator[Connection]:
        """Open a connection for reading; each statement has a snapshot of its own."""
        async with self._database.connect() as connection:
            yield connection


def _may_run_again(error: Exception) -> bool:
    return (
        isinstance(error, StaleAggregate) or is_worth_retrying(error) or is_connection_lost(error)
    )
