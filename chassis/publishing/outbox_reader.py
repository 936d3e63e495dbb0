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

# What may be sent now. The snapshot still has the rows that the statement deletes, so they are
# excluded with those that are in flight.
_WAITING: Final = """
            SELECT position, aggregatetype, aggregateid, payload, headers, created_at
            FROM outbox
            WHERE {of_topic}
              AND position NOT IN (SELECT unnest($2::bigint[]))
              AND NOT EXISTS (
                  SELECT FROM outbox_set_aside AS stuck
                  WHERE stuck.aggregatetype = outbox.aggregatetype
                    AND stuck.aggregateid = outbox.aggregateid
                  {fence}
              )
            ORDER BY {order}
            LIMIT $3
"""
# While topics are suspended: the topics that have rows, found by one descent of the index for each,
# and of each that is not suspended its first rows, which the index has in order. The planner must
# not take another way, on which it would read all that waits. Of an equality it would know that the
# topic is no part of the order, and follow the positions of all topics; and OFFSET 0 keeps it from
# making a join of NOT EXISTS, for which it would sort.
_TOPICS: Final = """,
    topics AS (
        (SELECT aggregatetype AS topic FROM outbox ORDER BY aggregatetype LIMIT 1)
        UNION ALL
        SELECT (
            SELECT aggregatetype FROM outbox WHERE aggregatetype > topic
            ORDER BY aggregatetype LIMIT 1
        )
        FROM topics WHERE topic IS NOT NULL
    )"""
_WAITING_OF_OTHERS: Final = """
            SELECT of_topic.*
            FROM topics CROSS JOIN LATERAL ({of_topic}) AS of_topic
            WHERE topic <> ALL ($5::text[])
            ORDER BY position
            LIMIT $3
"""
# One statement, so one snapshot and one round trip.
_DELETE_AND_FETCH: Final = """
    WITH RECURSIVE acknowledged AS (DELETE FROM outbox WHERE position = ANY ($1::bigint[])){topics}
    SELECT position, aggregatetype, aggregateid, payload, headers, created_ms
    FROM (
        SELECT
            position, aggregatetype, aggregateid, payload, headers,
            floor(extract(epoch FROM created_at) * 1000)::bigint AS created_ms,
            sum(octet_length(payload)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes
        FROM ({waiting}) AS waiting
    ) AS summed
    WHERE bytes - octet_length(payload) < $4
    ORDER BY position
"""
_FROM_ALL: Final = _DELETE_AND_FETCH.format(
    topics="", waiting=_WAITING.format(of_topic="true", order="position", fence="")
)
_FROM_OTHERS: Final = _DELETE_AND_FETCH.format(
    topics=_TOPICS,
    waiting=_WAITING_OF_OTHERS.format(
        of_topic=_WAITING.format(
            of_topic="aggregatetype BETWEEN topic AND topic",
            order="aggregatetype, position",
            fence="OFFSET 0",
        )
    ),
)
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
_COUNT_SET_ASIDE: Final = "SELECT count(*) FROM (SELECT FROM outbox_set_aside LIMIT $1) AS waiting"

Row = Any  # asyncpg.Record: a row of _FROM_ALL


class OutboxReader:
    """The outbox, on the connection that holds the relay's lock."""

    def __init__(self, connection: "asyncpg.Connection") -> None:
        self._connection = connection

    async def delete_and_fetch(
        self, acknowledged: Sequence[Row], *, in_flight: Sequence[Row], suspended: Sequence[str]
    ) -> Sequence[Row]:
        """Delete rows that Kafka has acknowledged, and return the next, lowest position first.

        Not returned are rows in flight, rows of suspended topics, and rows of an aggregate of
        which an earlier row was set aside. It costs the same whatever waits of suspended topics.
        """
        deleted = [row["position"] for row in acknowledged]
        excluded = [*deleted, *(row["position"] for row in in_flight)]
        statement, others = (_FROM_OTHERS, [list(suspended)]) if suspended else (_FROM_ALL, [])
        rows: Sequence[Row] = await self._connection.fetch(
            statement, deleted, excluded, MOST_ROWS, _MOST_BYTES, *others
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

    async def set_aside_waiting(self) -> int:
        """Return how many rows wait for an operator, counted up to 100,000."""
        return int(await self._connection.fetchval(_COUNT_SET_ASIDE, _COUNT_AT_MOST))
