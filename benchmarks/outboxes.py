"""Outboxes of a service: databases with its tables, and rows like those that it writes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from benchmarks.bench import Bench

SUBJECTS: Final = 2_000
_LOOK_EVERY_S: Final = 0.005
_EMPTIED_WITHIN_S: Final = 30.0

# Payloads of 500 bytes, and the headers that every event of ours has.
_MAKE: Final = """
    INSERT INTO outbox (
        id, aggregatetype, aggregateid, type, sequence, payload, headers, created_at
    )
    SELECT
        id, $1, subject, 'bench.event.v1', sequence,
        convert_to(
            rpad(format('{"specversion":"1.0","id":"%s","subject":"%s","data":"', id, subject),
                 498, '0123456789') || '"}',
            'UTF8'
        ),
        jsonb_build_object(
            'content-type', 'application/cloudevents+json', 'type', 'bench.event.v1',
            'id', id, 'subject', subject, 'sequence', lpad(sequence::text, 10, '0'),
            'traceparent', format('00-%s-%s-01', md5(subject), left(md5(id::text), 16))
        ),
        clock_timestamp()
    FROM (
        SELECT
            uuidv7() AS id,
            md5((n % $3)::text)::uuid::text AS subject,
            n / $3 + 1 AS sequence
        FROM generate_series($4::bigint + 1, $4 + $2::bigint) AS n
        OFFSET 0
    ) AS event
"""
_MAKE_ONE: Final = f"{_MAKE} RETURNING aggregateid"
_ALL: Final = 2**62


@asynccontextmanager
async def outbox_database(bench: Bench) -> AsyncIterator[str]:
    """Make a database with the users service's tables for the block; yield its URL."""
    async with own_database(bench, "users_service") as url:
        yield url


@asynccontextmanager
async def own_database(bench: Bench, service_module: str | None = None) -> AsyncIterator[str]:
    """Make a database for the block, with a service's tables if one is named; yield its URL."""
    url = await bench.database(service_module)
    try:
        yield url
    finally:
        bench.cluster.drop_database(urlsplit(url).path[1:])


async def fill(bench: Bench, url: str, topic: str, rows: int) -> None:
    """Insert rows of ``SUBJECTS`` subjects in turn into an outbox, and write it to disk."""
    await fill_by(bench, url, _MAKE, topic, rows, SUBJECTS, 0)


async def fill_by(bench: Bench, url: str, statement: str, *arguments: object) -> None:
    """Fill a table named outbox by one statement, and write it to disk."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *arguments)
        await connection.execute("VACUUM ANALYZE outbox")
    finally:
        await connection.close()
    # Written to disk now rather than during the measurement.
    connection = await asyncpg.connect(bench.cluster.superuser_url)
    try:
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def emptied(url: str) -> None:
    """Return once a table named outbox is empty.

    :raises TimeoutError: it still has rows, long after all of them were in Kafka
    """
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(_EMPTIED_WITHIN_S):
            while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        await connection.close()


async def write_one(connection: "asyncpg.Connection", topic: str, number: int) -> str:
    """Commit one row with its own subject, and return the subject."""
    return str(await connection.fetchval(_MAKE_ONE, topic, 1, _ALL, number))
