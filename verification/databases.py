"""Reads the services' databases: one snapshot each, row by row, and nothing is ever written."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from contracts.topics import TOPICS
from verification import queries
from verification.addresses import CannotVerify
from verification.effects import AGGREGATES
from verification.evidence import Evidence

_CONNECT_TIMEOUT_S: Final = 5.0
_ROWS_AT_ONCE: Final = 5_000


class ServiceDatabase:
    """One service's database, open."""

    def __init__(self, service: str, connection: "asyncpg.Connection[Any]", where: str) -> None:
        self.service = service
        self._connection = connection
        self._where = where

    async def outbox(self) -> tuple[int, int]:
        """Return how many rows are on their way to Kafka, and the highest of their positions."""
        with _naming(self._where):
            row = await self._connection.fetchrow(queries.OUTBOX)
        assert row is not None  # noqa: S101 - an aggregate has a row
        return row[0], row[1]

    async def progress(self) -> dict[tuple[str, str, int], int]:
        """Return how far each subscriber has come in each partition of each topic."""
        with _naming(self._where):
            rows = await self._connection.fetch(queries.PROGRESS)
        return {(subscriber, topic, partition): at for subscriber, topic, partition, at in rows}

    async def open_deliveries(self) -> int:
        """Return how many deliveries are still to be tried."""
        if self.service != "notification":
            return 0
        with _naming(self._where):
            return int(await self._connection.fetchval(queries.OPEN_DELIVERIES))

    async def read_into(self, evidence: Evidence) -> None:
        """Add what the database holds, as it is at one moment."""
        with _naming(self._where):
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                for table, query in queries.OF_EVERY_SERVICE:
                    async for rows in self._batches(query, self.service):
                        evidence.add(table, rows)
                for table, query in queries.OF_ONE_SERVICE[self.service]:
                    async for rows in self._batches(query):
                        evidence.add(table, rows)
                for topic, query in await self._aggregates():
                    async for rows in self._batches(query):
                        evidence.add("aggregates", ((topic, *row) for row in rows))

    async def _aggregates(self) -> list[tuple[str, str]]:
        """Return the topics whose last numbers are here, and how they are asked for."""
        found = [
            (topic, query) for topic, (who, query) in AGGREGATES.items() if who == self.service
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
    """Have a service's database open, for reading only.

    :raises CannotVerify: it does not answer, or is no database of this service
    """
    parts = urlsplit(url)
    where = f"the database of {service} ({parts.hostname}:{parts.port or 5432}{parts.path})"
    with _naming(where):
        connection = await asyncpg.connect(
            url,
            timeout=_CONNECT_TIMEOUT_S,
            server_settings={
                "application_name": "verification",
                "default_transaction_read_only": "on",
            },
        )
    try:
        yield ServiceDatabase(service, connection, where)
    finally:
        await connection.close(timeout=_CONNECT_TIMEOUT_S)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say whose trouble it is."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        said = str(error).strip().partition("\n")[0]
        raise CannotVerify(f"{where}: {said or type(error).__name__}") from error
