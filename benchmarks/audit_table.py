"""Audit's table at ten million rows: its indexes, its numbers, its searches; before and now.

``python -m benchmarks.audit_table`` starts a PostgreSQL of its own, and needs 30 GB of disk. The
results are in docs/decisions/0017-audits-table.md.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
from alembic import command
from sqlalchemy import make_url, select, tuple_

from audit_service.numbers import RecordNumbers
from audit_service.queries import Records, RecordSearch
from audit_service.tables import records
from chassis.correlation import new_id
from chassis.migrations import config_of
from chassis.persistence.database import Database
from local_cluster.testing import RunningInfrastructure, running_infrastructure

_FIRST: Final = datetime(2025, 1, 1, tzinfo=UTC)
_APART: Final = timedelta(seconds=6)
_AT_ONCE: Final = 200_000
_A_SUBJECT: Final = 10
_READS: Final = 200
_MONTHS: Final = 24

# Twenty types on five topics, and one type that occurred in the first minutes only. The payloads
# are short: no index has them, and the chunks that are measured have payloads of the usual size.
_FILL: Final = """
    INSERT INTO records (topic, partition, "offset", key, headers, payload, sha256, recorded_at,
        event_id, source, type, subject, occurred_at, sequence, correlation_id, causation_id,
        traceparent, verdict, altered)
    SELECT 'topic.' || k % 5, n % 8, n / 8, convert_to(subject, 'UTF8'), '[]', '\\x7b7d',
        sha256(convert_to(n::text, 'UTF8')), at, uuidv7(at - now()), '/source.' || k % 5,
        CASE WHEN n <= 100 THEN 'rare.v1' ELSE 'service.something-happened-' || k || '.v1' END,
        subject, at, 1 + n / $3::bigint, md5('c ' || n), md5('e ' || n), repeat('x', 55), 'next',
        false
    FROM generate_series($1::bigint, $2::bigint) AS n, CAST(n % 20 AS int) AS k,
        CAST(CAST(md5('s ' || n % $3::bigint) AS uuid) AS text) AS subject,
        CAST(timestamptz '2025-01-01' + n * interval '6 s' AS timestamptz) AS at
"""
_SEARCHED_BY: Final = """
    SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'records' AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE conname = indexname
    )
"""
_SIZES: Final = """
    SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes
    WHERE relname IN ('records', 'record_numbers') ORDER BY 1
"""
# The schema before has no client_correlation_id, and hardly a record has one.
_COLUMNS: Final = [
    each.name for each in records.columns if each.name not in ("position", "client_correlation_id")
]
_RATE: Final = "records/s"
BEFORE, NOW = "before", "now"


async def _execute(url: str, *statements: str) -> float:
    """Run statements one after the other, and return how many seconds they took."""
    connection = await asyncpg.connect(url)
    began = time.perf_counter()
    try:
        for each in statements:
            await connection.execute(each)
        return time.perf_counter() - began
    finally:
        await connection.close()


async def _fill(url: str, rows: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        indexes = await connection.fetch(_SEARCHED_BY)
        for each in indexes:
            await connection.execute(f"DROP INDEX {each['indexname']}")
        for begin in range(1, rows + 1, _AT_ONCE):
            end = min(begin + _AT_ONCE - 1, rows)
            await connection.execute(_FILL, begin, end, rows // _A_SUBJECT)
        for each in indexes:
            await connection.execute(each["indexdef"])
        await connection.execute("VACUUM (ANALYZE) records")
    finally:
        await connection.close()


@dataclass(frozen=True)
class Load:
    """Writers, each with so many chunks of so many records, a transaction for each chunk."""

    name: str
    writers: int
    chunks: int
    size: int


LOADS: Final = (Load("chunks of 500", 4, 20, 500), Load("single records", 16, 50, 1))


def _chunk(size: int) -> list[tuple[Any, ...]]:
    """Return the rows of a chunk, of the usual size, as the service writes them."""
    made = []
    for at in range(size):
        id_, now, k = new_id(), datetime.now(UTC), at % 20
        subject = str(UUID(int=random.getrandbits(128)))
        made.append(
            (
                *(f"topic.{k % 5}", 0, at, subject.encode(), '["' + "x" * 330 + '"]', b"x" * 600),
                *(id_.bytes * 2, now, None, id_, f"/source.{k % 5}"),
                *(f"service.something-happened-{k}.v1", subject, now, 1, str(new_id()), str(id_)),
                *("x" * 55, "next", False),
            )
        )
    return made


Numbers = Callable[["asyncpg.Connection", int], Awaitable[None]]
"""Numbers the records of a chunk in its transaction, before the COMMIT."""


async def _later(_connection: "asyncpg.Connection", _count: int) -> None:
    """Leave it to the component that numbers what has committed."""


async def _in_the_chunk(connection: "asyncpg.Connection", count: int) -> None:
    """Take the lock that the other chunks then wait for until this one has committed."""
    await connection.execute("SELECT pg_advisory_xact_lock(17)")
    await connection.execute(
        "WITH was AS (SELECT coalesce(max(number), 0) AS last FROM numbered_by_chunks)"
        " INSERT INTO numbered_by_chunks SELECT last + n, last + n"
        " FROM was, generate_series(1, $1::int) AS n",
        count,
    )


async def _write(
    connection: "asyncpg.Connection", chunks: Sequence[Sequence[tuple[Any, ...]]], numbers: Numbers
) -> None:
    for rows in chunks:
        async with connection.transaction():
            await connection.copy_records_to_table("records", columns=_COLUMNS, records=rows)
            await numbers(connection, len(rows))


@dataclass(frozen=True)
class Cost:
    """What a load cost: its pace until it was committed, and until all was numbered then."""

    records_per_s: float
    wal_bytes: float
    numbered_after_s: float


async def _ingest(url: str, load: Load, numbers: Numbers, numbering: RecordNumbers | None) -> Cost:
    chunks = [[_chunk(load.size) for _ in range(load.chunks)] for _ in range(load.writers)]
    connections = [await asyncpg.connect(url) for _ in chunks]
    before = await connections[0].fetchval("SELECT pg_current_wal_insert_lsn()")
    began = time.perf_counter()
    running = asyncio.create_task(numbering.run()) if numbering else None
    await asyncio.gather(
        *(_write(*each, numbers) for each in zip(connections, chunks, strict=True))
    )
    took_s = time.perf_counter() - began
    if numbering and running:
        await numbering.stop()
        await running
        while await numbering.number():
            pass
    numbered_after_s = time.perf_counter() - began - took_s
    written = "SELECT pg_current_wal_insert_lsn() - $1::pg_lsn"
    wal = float(await connections[0].fetchval(written, before))
    for each in connections:
        await each.close()
    added = load.writers * load.chunks * load.size
    return Cost(added / took_s, wal / added, numbered_after_s)


async def _compare_ways(urls: Mapping[str, str], engine: Database, load: Load, rounds: int) -> None:
    """Print what each way to number costs, before and now, in alternation."""
    ways: Mapping[str, tuple[str, Numbers, bool]] = {
        "before, without numbers": (BEFORE, _later, False),
        "now": (NOW, _later, True),
        "now, but numbered in the chunk's transaction": (NOW, _in_the_chunk, False),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(rounds):
        # In alternating order, so that other load affects all alike.
        for name in list(ways)[:: 1 if number % 2 else -1]:
            database, numbers, by_component = ways[name]
            component = RecordNumbers(engine) if by_component else None
            costs[name].append(await _ingest(urls[database], load, numbers, component))
            while await RecordNumbers(engine).number():
                pass
    print(f"\n| {load.name}, {load.writers} writers | records/s | of before | WAL a record", end="")
    print(" | all numbered after, s |\n|---|---|---|---|---|")
    first, *_ = costs.values()
    for name, found in costs.items():
        rate = statistics.median([each.records_per_s for each in found])
        pairs = zip(found, first, strict=True)
        ratio = statistics.median([each.records_per_s / then.records_per_s for each, then in pairs])
        wal = statistics.median([each.wal_bytes for each in found])
        later_s = statistics.median([each.numbered_after_s for each in found])
        print(f"| {name} | {rate:,.0f} | {ratio:.2f} | {wal:,.0f} | {later_s:.1f} |", flush=True)


def _as_before(search: RecordSearch) -> Any:
    """Return the query of the former code: a range of the index of one filter."""
    c = records.c
    filters = {"subject": c.subject, "type": c.type, "topic": c.topic, "source": c.source}
    filters |= {"correlation_id": c.correlation_id}
    order: list[Any] = [c.occurred_at, c.position]
    lowest: list[Any] = [datetime.min.replace(tzinfo=UTC), 0]
    highest: list[Any] = [search.occurred_to or datetime.max.replace(tzinfo=UTC), 0]
    for name, column in filters.items():
        if getattr(search, name) is not None:
            order.insert(0, column)
            lowest.insert(0, getattr(search, name))
            highest.insert(0, getattr(search, name))
    columns = [each for each in c if each.name not in ("headers", "payload")]
    return (
        select(*columns)
        .where(tuple_(*order) >= lowest, tuple_(*order) < highest)
        .order_by(*(each.desc() for each in order))
        .limit(search.limit + 1)
    )


def _searches(rows: int) -> Mapping[str, RecordSearch]:
    """Return one search of each kind, of records anywhere in the table."""
    number = random.randrange(1_000, rows)  # noqa: S311
    until = {"to": _FIRST + number * _APART}

    def of(**filters: Any) -> RecordSearch:
        return RecordSearch.model_validate(filters)

    return {
        "none": of(**until),
        "subject": of(subject=_subject(number, rows)),
        "correlation_id": of(correlation_id=_md5(f"c {number}")),
        "type": of(type=f"service.something-happened-{number % 20}.v1", **until),
        "type, long ago": of(type="rare.v1"),
        "topic": of(topic=f"topic.{number % 5}", **until),
        "source": of(source=f"/source.{number % 5}", **until),
    }


def _subject(number: int, rows: int) -> str:
    return str(UUID(_md5(f"s {number % (rows // _A_SUBJECT)}")))


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


async def _search(engines: Mapping[str, Database], rows: int) -> None:
    """Print the median time of each search in both tables, in alternation."""
    took: dict[str, dict[str, list[float]]] = {name: {} for name in engines}
    now = Records(engines[NOW])
    for _ in range(_READS):
        for name, search in _searches(rows).items():
            began = time.perf_counter()
            async with engines[BEFORE].connect() as connection:
                (await connection.execute(_as_before(search))).all()
            took[BEFORE].setdefault(name, []).append(time.perf_counter() - began)
            began = time.perf_counter()
            await now.page(search)
            took[NOW].setdefault(name, []).append(time.perf_counter() - began)
    print("\n| search by | before, ms | now, ms |\n|---|---|---|")
    for name in took[NOW]:
        ms = [statistics.median(took[each][name]) * 1_000 for each in (BEFORE, NOW)]
        print(f"| {name} | {ms[0]:.2f} | {ms[1]:.2f} |")


async def _partitions(url: str) -> None:
    """Print what a search by subject costs in one table, and in one with a partition a month."""
    months = [_FIRST + n * timedelta(days=30) for n in range(_MONTHS + 1)]
    partitions = [
        f"CREATE TABLE by_month_{n} PARTITION OF by_month FOR VALUES FROM ('{begin}') TO ('{end}')"
        for n, (begin, end) in enumerate(pairwise(months))
    ]
    columns = "subject, occurred_at, position"
    rows = (
        f"SELECT {columns} FROM records"  # noqa: S608
        f" WHERE occurred_at < '{months[-1]}'"
    )
    await _execute(
        url,
        f"CREATE TABLE whole AS {rows}",
        f"CREATE INDEX ON whole ({columns})",
        "CREATE TABLE by_month (LIKE whole) PARTITION BY RANGE (occurred_at)",
        *partitions,
        "INSERT INTO by_month SELECT * FROM whole",
        f"CREATE INDEX ON by_month ({columns})",
        "VACUUM (ANALYZE) whole",
        "VACUUM (ANALYZE) by_month",
    )
    connection = await asyncpg.connect(url)
    count = await connection.fetchval("SELECT count(*) FROM whole")
    took: dict[str, list[float]] = {"whole": [], "by_month": []}
    for _ in range(_READS):
        subject = _subject(random.randrange(count), count)  # noqa: S311
        for table, times in took.items():
            began = time.perf_counter()
            await connection.fetch(
                f"SELECT * FROM {table} WHERE subject = $1"  # noqa: S608
                " ORDER BY occurred_at DESC, position DESC LIMIT 51",
                subject,
            )
            times.append(time.perf_counter() - began)
    await connection.close()
    ms = {table: statistics.median(times) * 1_000 for table, times in took.items()}
    print(f"\na search by subject: {ms['whole']:.2f} ms in one table,", end=" ")
    print(f"{ms['by_month']:.2f} ms in one of {_MONTHS} partitions by month")


async def _print_sizes(name: str, url: str) -> None:
    connection = await asyncpg.connect(url)
    sizes = await connection.fetch(_SIZES)
    heap = await connection.fetchval("SELECT pg_relation_size('records')")
    await connection.close()
    print(f"\n{name}: the records without indexes {heap / 1e6:,.0f} MB; the indexes, in MB")
    for index, size in sizes:
        print(f"  {index} {size / 1e6:,.0f}")
    print(f"  all {sum(size for _, size in sizes) / 1e6:,.0f}", flush=True)


async def _run(infrastructure: RunningInfrastructure, rows: int, rounds: int) -> None:
    urls = {BEFORE: infrastructure.create_database(BEFORE)}
    await asyncio.to_thread(command.upgrade, config_of("audit_service", urls[BEFORE]), "audit_0001")
    began = time.perf_counter()
    await _fill(urls[BEFORE], rows)
    print(f"{rows:,} records made in {time.perf_counter() - began:.0f} s", flush=True)
    owner = make_url(urls[BEFORE]).username
    copy = f"CREATE DATABASE {NOW} TEMPLATE {BEFORE} OWNER {owner} STRATEGY FILE_COPY"
    await _execute(infrastructure.superuser_url, copy)
    urls[NOW] = urls[BEFORE].removesuffix(BEFORE) + NOW
    began = time.perf_counter()
    await asyncio.to_thread(command.upgrade, config_of("audit_service", urls[NOW]), "heads")
    print(f"migrated in {time.perf_counter() - began:.0f} s", flush=True)

    engines = {
        name: Database(url, pool_size=2, application_name="benchmark") for name, url in urls.items()
    }
    numbering = RecordNumbers(engines[NOW])
    began = time.perf_counter()
    while await numbering.number():
        pass
    print(f"numbered in {time.perf_counter() - began:.0f} s", flush=True)
    for name, url in urls.items():
        await _print_sizes(name, url)
        took_s = statistics.median([await _execute(url, "ANALYZE records") for _ in range(5)])
        print(f"  ANALYZE takes {took_s:.2f} s", flush=True)

    await _execute(
        urls[NOW],
        "CREATE TABLE numbered_by_chunks (number bigint PRIMARY KEY, position bigint UNIQUE)",
    )
    for load in LOADS:
        await _compare_ways(urls, engines[NOW], load, rounds)
    await _search(engines, rows)
    for engine in engines.values():
        await engine.close()
    await _partitions(urls[BEFORE])


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.audit_table", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=9, help="of each way, in alternation")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        running_infrastructure(
            Path(directory) / "cluster", kafka=False, short_lived=False
        ) as infrastructure,
    ):
        asyncio.run(_run(infrastructure, arguments.rows, arguments.rounds))


if __name__ == "__main__":
    main()
