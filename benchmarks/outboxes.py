"""Outboxes of a service: databases with its tables, and rows as it writes them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from benchmarks.bench import Bench

SUBJECTS: Final = 2_000

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
    """Have a database with the users service's tables while the block runs; yield its URL."""
    url = await bench.database("users_service")
    try:
        yield url
    finally:
        bench.cluster.drop_database(urlsplit(url).path[1:])


async def fill(bench: Bench, url: str, topic: str, rows: int) -> None:
    """Put rows of ``SUBJECTS`` subjects in turn into an outbox, and let it settle."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_MAKE, topic, rows, SUBJECTS, 0)
        await connection.execute("VACUUM ANALYZE outbox")
    finally:
        await connection.close()
    await _checkpoint(bench)


async def _checkpoint(bench: Bench) -> None:
    """Have what was written on disk now rather than while somebody is measured."""
    connection = await asyncpg.connect(bench.cluster.superuser_url)
    try:
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def write_one(connection: "asyncpg.Connection", topic: str, number: int) -> str:
    """Commit one row, of a subject of its own, and return that."""
    return str(await connection.fetchval(_MAKE_ONE, topic, 1, _ALL, number))
