"""Reads the services' databases: one snapshot each, row by row. Nothing is written."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg

from chassis.in_the_clear import around_servers
from chassis.persistence import connecting
from contracts.topics import TOPICS
from verification import queries
from verification.addresses import CannotVerify
from verification.effects import AGGREGATES
from verification.evidence import Evidence

_CLOSE_TIMEOUT_S: Final = 5.0
_ROWS_AT_ONCE: Final = 5_000


class ServiceDatabase:
    """An open connection to one service's database."""

    def __init__(self, service: str, connection: "asyncpg.Connection[Any]", name: str) -> None:
        self.service = service
        self._connection = connection
        self._name = name

    async def outbox(self) -> tuple[int, int]:
        """Return how many rows wait to be published, and the highest of their positions."""
        with _errors_of(self._name):
            row = await self._connection.fetchrow(queries.OUTBOX)
        assert row is not None  # noqa: S101 - an aggregate has a row
        return row[0], row[1]

    async def progress(self) -> dict[tuple[str, str, int], int]:
        """Return the next offset of each subscriber in each partition of each topic."""
        with _errors_of(self._name):
            rows = await self._connection.fetch(queries.PROGRESS)
        return {
            (subscriber, topic, partition): next_ for subscriber, topic, partition, next_ in rows
        }

    async def due_timers(self) -> int:
        """Return how many aggregates have a timer to handle now."""
        with _errors_of(self._name):
            return int(await self._connection.fetchval(queries.DUE_TIMERS))

    async def open_deliveries(self) -> int:
        """Return how many deliveries wait for a try."""
        if self.service != "notification":
            return 0
        with _errors_of(self._name):
            return int(await self._connection.fetchval(queries.OPEN_DELIVERIES))

    async def unnumbered(self) -> int:
        """Return how many audit records wait for their number."""
        if self.service != "audit":
            return 0
        with _errors_of(self._name):
            return int(await self._connection.fetchval(queries.UNNUMBERED))

    async def read_into(self, evidence: Evidence) -> None:
        """Add what the database holds, as it is at one moment."""
        with _errors_of(self._name):
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                for table, query in queries.OF_EVERY_SERVICE:
                    async for rows in self._batches(query, self.service):
                        evidence.add(table, rows)
                for table, query in queries.OF_ONE_SERVICE.get(self.service, ()):
                    async for rows in self._batches(query):
                        evidence.add(table, rows)
                for topic, query in await self._aggregates():
                    async for rows in self._batches(query):
                        evidence.add("aggregates", ((topic, *row) for row in rows))

    async def _aggregates(self) -> list[tuple[str, str]]:
        """Return each topic whose last sequences are in this database, and the query for them."""
        found = [
            (topic, query)
            for topic, (service, query) in AGGREGATES.items()
            if service == self.service
        ]
        operations = f"{self.service}.operations"
        if operations in {topic.name for topic in TOPICS}:
            found.append((operations, "SELECT subject::text, last_sequence FROM operated"))
        return found

    async def _batches(self, query: str, *arguments: str) -> AsyncIterator[list[Any]]:
        cursor = await self._connection.cursor(query, *arguments)
        while rows := await cursor.fetch(_ROWS_AT_ONCE):
            yield rows


@asynccontextmanager
async def open_database(service: str, url: str) -> AsyncIterator[ServiceDatabase]:
    """Open a service's database, for reading only.

    :raises CannotVerify: it does not answer, or belongs to another service
    """
    _, servers, after = around_servers(url)
    name = f"the database of {service} ({servers}{after.partition('?')[0]})"
    with _errors_of(name):
        connection = await connecting.connect(
            url,
            application_name="verification",
            settings={"default_transaction_read_only": "on"},
            only_reads=True,
        )
    try:
        yield ServiceDatabase(service, connection, name)
    finally:
        await connection.close(timeout=_CLOSE_TIMEOUT_S)


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Raise what goes wrong as ``CannotVerify``, with the database's name."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        message = str(error).strip().partition("\n")[0]
        raise CannotVerify(f"{name}: {message or type(error).__name__}") from error
