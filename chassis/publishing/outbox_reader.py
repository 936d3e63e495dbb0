"""The outbox as the relay works through it: always from the lowest position."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

#: Rows read at once, at most; that many, and there may be more.
MOST_ROWS: Final = 2_000
# Beside the number of rows, so that large ones do not fill the memory.
_MOST_BYTES: Final = 8 * 1_048_576
_COUNT_AT_MOST: Final = 100_000

# What was acknowledged is deleted by the statement that reads on: this one's snapshot still has
# it, so it is left out with what is on its way.
_TURN: Final = """
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

Row = Any  # asyncpg.Record: a row of _TURN


class OutboxReader:
    """The rows that wait, on the connection that holds the relay's lock."""

    def __init__(self, connection: "asyncpg.Connection") -> None:
        self._connection = connection

    async def turn(
        self, done: Sequence[Row], on_their_way: Sequence[Row], but_not: Sequence[str]
    ) -> Sequence[Row]:
        """Remove rows that Kafka has acknowledged, and return the next, lowest position first.

        Left out are rows that are on their way, these topics, and aggregates of which a row was
        set aside: what comes later waits behind it.
        """
        gone = [row["position"] for row in done]
        not_again = [*gone, *(row["position"] for row in on_their_way)]
        rows: Sequence[Row] = await self._connection.fetch(
            _TURN, gone, not_again, list(but_not), MOST_ROWS, _MOST_BYTES
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
