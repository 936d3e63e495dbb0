"""The outbox as the relay works through it: always from the lowest position."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

_MOST_ROWS: Final = 1_000
# Beside the number of rows, so that large ones do not fill the memory.
_MOST_BYTES: Final = 8 * 1_048_576
_COUNT_AT_MOST: Final = 100_000

_READ: Final = """
    SELECT position, aggregatetype, aggregateid, payload, headers, created_at
    FROM (
        SELECT
            position, aggregatetype, aggregateid, payload, headers, created_at,
            sum(octet_length(payload)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes
        FROM outbox
        WHERE aggregatetype <> ALL ($1::text[])
          AND position NOT IN (SELECT unnest($4::bigint[]))
          AND NOT EXISTS (
              SELECT FROM outbox_set_aside AS stuck
              WHERE stuck.aggregatetype = outbox.aggregatetype
                AND stuck.aggregateid = outbox.aggregateid
          )
        ORDER BY position
        LIMIT $2
    ) AS waiting
    WHERE bytes - octet_length(payload) < $3
    ORDER BY position
"""
_DELETE: Final = "DELETE FROM outbox WHERE position = ANY ($1::bigint[])"
_SET_ASIDE: Final = """
    WITH moved AS (DELETE FROM outbox WHERE position = $1 RETURNING *)
    INSERT INTO outbox_set_aside (
        position, id, aggregatetype, aggregateid, type, sequence, payload, headers, created_at,
        error_code, error_message, set_aside_at
    )
    SELECT
        position, id, aggregatetype, aggregateid, type, sequence, payload, headers, created_at,
        $2, $3, $4
    FROM moved
"""
_COUNT: Final = "SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS waiting"

Row = Any  # asyncpg.Record: a row of _READ


class OutboxQueue:
    """The rows that wait, on the connection that holds the relay's lock."""

    def __init__(self, connection: "asyncpg.Connection") -> None:
        self._connection = connection

    async def read(self, but_not: Sequence[str], on_their_way: Sequence[Row] = ()) -> Sequence[Row]:
        """Return the next rows, lowest position first, leaving out these topics and these rows.

        So are aggregates of which a row was set aside: what comes later waits behind it.
        """
        positions = [row["position"] for row in on_their_way]
        rows: Sequence[Row] = await self._connection.fetch(
            _READ, list(but_not), _MOST_ROWS, _MOST_BYTES, positions
        )
        return rows

    async def delete(self, rows: Sequence[Row]) -> None:
        """Remove rows that Kafka has acknowledged."""
        await self._connection.execute(_DELETE, [row["position"] for row in rows])

    async def set_aside(self, row: Row, code: str, message: str, at: datetime) -> None:
        """Take a row that Kafka refuses out of the way, to where an operator finds it."""
        await self._connection.execute(_SET_ASIDE, row["position"], code, message, at)

    async def depth(self) -> int:
        """Return how many rows wait, up to a bound."""
        return int(await self._connection.fetchval(_COUNT, _COUNT_AT_MOST))
