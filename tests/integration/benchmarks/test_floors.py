"""A floor is worth comparing with only if it leaves what the service leaves."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from benchmarks.bench import PARTITIONS, Bench
from benchmarks.figures.opening import pgbench
from benchmarks.ingest import CHUNK, empty_database, ingest_into, pace
from benchmarks.logs import EVENTS_A_SUBJECT, long_histories, sign_ups
from local_cluster.testing import RunningCluster, running_infrastructure

_EVENTS = 200 * EVENTS_A_SUBJECT

_RECORDS = """
    SELECT topic, partition, "offset", key, headers::text, payload, sha256, invalid_reason,
        event_id, source, type, subject, occurred_at, sequence, correlation_id, causation_id,
        traceparent, verdict, altered
    FROM records ORDER BY partition, "offset"
"""
_INBOX = "SELECT * FROM inbox ORDER BY subject"
_PROGRESS = """
    SELECT subscriber, topic, partition, next_offset FROM progress
    WHERE next_offset > 0 ORDER BY partition
"""
# What a row of each table takes, to within a word or two; and that all have as many.
_OPENED = """
    WITH of_users AS (SELECT * FROM accounts WHERE user_id IS NOT NULL),
        of_openings AS (SELECT * FROM inbox WHERE subscriber = 'accounts.open-account')
    SELECT (SELECT round(avg(pg_column_size(outbox.*)), -1) FROM outbox),
        (SELECT round(avg(pg_column_size(of_users.*)), -1) FROM of_users),
        (SELECT round(avg(pg_column_size(ledger_entries.*)), -1) FROM ledger_entries),
        (SELECT round(avg(pg_column_size(owners.*)), -1) FROM owners),
        (SELECT round(avg(pg_column_size(of_openings.*) - length(topic)), -1) FROM of_openings),
        (SELECT count(DISTINCT n) FROM (
            SELECT count(*) FROM outbox UNION ALL SELECT count(*) FROM of_users
            UNION ALL SELECT count(*) FROM ledger_entries UNION ALL SELECT count(*) FROM owners
            UNION ALL SELECT count(*) FROM of_openings UNION ALL SELECT count(*) / 2 FROM inbox
            UNION ALL SELECT sum(next_offset) FROM progress
                WHERE subscriber IN ('accounts.open-account', 'floor')
        ) AS counts (n))
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory: Path = tmp_path_factory.mktemp("bench")
    with running_infrastructure(directory / "cluster") as infrastructure:
        cluster = cast("RunningCluster", infrastructure)  # nothing here asks for a service
        yield Bench(cluster, directory, full=False, say=lambda _: None)


@pytest.fixture
async def audit(bench: Bench) -> AsyncIterator[str]:
    async with empty_database(bench, "audit") as url:
        yield url


async def _rows(url: str, *queries: str) -> Sequence[Sequence[asyncpg.Record]]:
    connection: Any = await asyncpg.connect(url)
    try:
        return [await connection.fetch(query) for query in queries]
    finally:
        await connection.close()


async def test_the_floor_of_audit_ingest_leaves_the_same_rows(bench: Bench, audit: str) -> None:
    log = await long_histories(bench, _EVENTS)
    await ingest_into(audit, bench, "audit", log)
    async with empty_database(bench, "audit") as url:
        argv = [bench.cluster.kafka_bootstrap, log.topic, str(PARTITIONS), url, str(CHUNK)]
        async with bench.program(["benchmarks.programs.bare_ingest", *argv]) as program:
            await pace(bench, url, log.records, [program])
        floor = await _rows(url, _RECORDS, _INBOX, _PROGRESS)

    service = await _rows(audit, _RECORDS, _INBOX, _PROGRESS)

    assert len(service[0]) == _EVENTS
    assert floor == service


async def test_the_floor_of_account_opening_leaves_rows_of_the_same_size(bench: Bench) -> None:
    log = await sign_ups(bench, _EVENTS)
    async with empty_database(bench, "accounts") as url:
        await ingest_into(url, bench, "accounts", log)
        service = await _rows(url, _OPENED)
    async with empty_database(bench, "accounts") as url:
        await pgbench(bench, url, _EVENTS)
        floor = await _rows(url, _OPENED)

    assert floor == service
