"""A poll of the outbox: which rows it returns, and what it reads to find them."""

from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import asyncpg
import pytest

from chassis.persistence.database import Database
from chassis.publishing import outbox_reader
from chassis.publishing.outbox_reader import MOST_ROWS, OutboxReader, Row
from tests.integration.explained import pages_read

_WRITE = """
    INSERT INTO outbox
        (id, aggregatetype, aggregateid, type, sequence, payload, headers, created_at)
    SELECT gen_random_uuid(), $1, $2, 't.v1', 1, decode(repeat('ab', 300), 'hex'), '{}', now()
    FROM generate_series(1, $3::int)
"""


@pytest.fixture
async def connection(engine: Database, database: str) -> AsyncIterator["asyncpg.Connection"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def fetch(
    connection: "asyncpg.Connection", *suspended: str, in_flight: Sequence[Row] = ()
) -> list[tuple[str, str]]:
    """Return topic and subject of the rows that are to be sent next."""
    reader = OutboxReader(connection)
    found = await reader.delete_and_fetch([], in_flight=in_flight, suspended=suspended)
    assert [row["position"] for row in found] == sorted(row["position"] for row in found)
    return [(row["aggregatetype"], row["aggregateid"]) for row in found]


class TestWhileATopicIsSuspended:
    async def test_the_rows_of_the_others_are_returned_by_position_and_none_is_passed_over(
        self, connection: "asyncpg.Connection"
    ) -> None:
        for subject in "12345":
            for topic in ("a", "suspended", "b", "z"):
                await connection.execute(_WRITE, topic, subject, 1)
        reader = OutboxReader(connection)
        in_flight = (await reader.delete_and_fetch([], in_flight=[], suspended=["suspended"]))[:2]
        await reader.set_aside(
            next(row for row in in_flight if row["aggregatetype"] == "a"),
            "Refused",
            "it is too large",
            await connection.fetchval("SELECT now()"),
        )
        await connection.execute(_WRITE, "a", "1", 1)

        found = await fetch(connection, "suspended", "missing", in_flight=in_flight)

        expected = [(topic, subject) for subject in "12345" for topic in ("a", "b", "z")]
        assert found == [each for each in expected if each not in [("a", "1"), ("b", "1")]]

    async def test_no_more_are_returned_than_otherwise(
        self, connection: "asyncpg.Connection"
    ) -> None:
        await connection.execute(_WRITE, "suspended", "1", 10)
        for topic in ("a", "b"):
            await connection.execute(_WRITE, topic, "1", MOST_ROWS)

        found = await fetch(connection, "suspended")

        assert found == [("a", "1")] * MOST_ROWS


class TestAPoll:
    @pytest.mark.parametrize("plan", ["force_generic_plan", "force_custom_plan"])
    async def test_costs_the_same_whatever_waits_of_a_suspended_topic(
        self, connection: "asyncpg.Connection", plan: str
    ) -> None:
        # A plan that was made while the outbox was empty stays in use.
        await connection.execute(f"SET plan_cache_mode = {plan}")
        await connection.execute(
            f"PREPARE poll (bigint[], bigint[], int, bigint, text[]) AS"
            f" {outbox_reader._FROM_OTHERS}"
        )
        poll = f"poll('{{}}', '{{}}', {MOST_ROWS}, {8 * 1_048_576}, '{{suspended}}')"
        await connection.execute(f"EXECUTE {poll}")
        await connection.execute(_WRITE, "suspended", str(uuid4()), 20_000)
        for topic in ("a", "z"):
            await connection.execute(_WRITE, topic, str(uuid4()), 5)

        for before in ("SELECT 1", "ANALYZE"):
            await connection.execute(before)
            explained = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE {poll}")
            lines = [row[0] for row in explained]

            assert "rows=10.00" in lines[0], lines
            assert pages_read(lines) < 100, lines
