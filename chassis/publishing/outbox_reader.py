"""Reads the outbox for the relay, always from the lowest position."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

#: The most rows of one fetch; after a full one there may be more.
MOST_ROWS: Final = 2_000
# Beside the number of rows, so that large ones do not fill the memory.
_MOST_BYTES: Final = 8 * 1_048_576
_COUNT_AT_MOST: Final = 100_000

# One statement, so one snapshot and one round trip. The snapshot still has the rows that the
# statement deletes, so they are excluded with those that are in flight.
_DELETE_AND_FETCH: Final = """
    WITH acknowledged AS (DELETE FROM outbox WHERE position = ANY ($1::bigint[]))
    SELECT position, aggregatetype, aggregateid, payload, headers, created_ms
    FROM (
        SELECT
            position, aggregatetype, aggregateid, payload, headers,
            floor(extract(epoch FROM created_at) * 1000)::bigint AS created_ms,
            sum(octet_length(payload)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes
        FROM outbox
        WHERE aggregatetype <> ALL ($3::text[])
          AND position NOT IN (SELECT unnest($2::bigint[]))
          AND NOT EXISTS (
              SELECT FROM outbox_set_aside AS stuck
              WHERE stuck.aggregatetype = outbox.aggregatetype
                AND stuck.aggregateid = outbox.aggregateid
          )
        ORDER BY position
        LIMIT $4
    ) AS waiting
    WHERE bytes - octet_length(payload) < $5
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

Row = Any  # asyncpg.Record: a row of _DELETE_AND_FETCH


class OutboxReader:
    """The outbox, on the connection that holds the relay's lock."""

    def __init__(self, connection: "asyncpg.Connection") -> None:
        self._connection = connection

    async def delete_and_fetch(
        self, acknowledged: Sequence[Row], *, in_flight: Sequence[Row], suspended: Sequence[str]
    ) -> Sequence[Row]:
        """Delete rows that Kafka has acknowledged, and return the next, lowest position first.

        Not returned are rows in flight, rows of suspended topics, and rows of an aggregate of
        which an earlier row was set aside.
        """
        deleted = [row["position"] for row in acknowledged]
        excluded = [*deleted, *(row["position"] for row in in_flight)]
        rows: Sequence[Row] = await self._connection.fetch(
            _DELETE_AND_FETCH, deleted, excluded, list(suspended), MOST_ROWS, _MOST_BYTES
        )
        return rows

    async def delete(self, acknowledged: Sequence[Row]) -> None:
        """Delete rows that Kafka has acknowledged."""
        await self._connection.execute(_DELETE, [row["position"] for row in acknowledged])

    async def set_aside(self, row: Row, code: str, message: str, at: datetime) -> None:
        """Move a row that Kafka refuses to ``outbox_set_aside``, where an operator finds it."""
        await self._connection.execute(_SET_ASIDE, row["position"], code, message, at)

    async def depth(self) -> int:
        """Return how many rows the outbox has, counted up to 100,000."""
        return int(await self._connection.fetchval(_COUNT, _COUNT_AT_MOST))
