"""Growth: the same work and the same reads in small tables and in very large ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import asyncpg

from benchmarks import programs
from benchmarks.bench import Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.ingest import empty_database, ingest_into
from benchmarks.logs import EVENTS_A_SUBJECT, histories, new_log
from benchmarks.postgres import cache_for_this_machine

_FEW, _MANY = 10_000, 10_000_000
_AMONG_FEW, _AMONG_MANY = "10 thousand rows", "10 million rows"
_INGESTED: Final = 50_000
_AT_ONCE: Final = 100_000
_MOST: Final = 1.2

_SERVICES: Final = ("accounts", "audit")
_FILLED_BY: Final = {"accounts": "fill_accounts.sql", "audit": "fill_records.sql"}
#: Indexes for searches; built after the rows are inserted, in a fraction of the time.
_INDEXES: Final = """
    SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'records' AND NOT EXISTS (
        SELECT FROM pg_constraint WHERE conname = indexname
    )
"""

# Else the service would do it while it is measured.
_NUMBER_ALL: Final = """
    INSERT INTO record_numbers SELECT row_number() OVER (ORDER BY position), position FROM records
"""
_ALL_ARE_NUMBERED: Final = """
    UPDATE numbering SET numbered_to = last, seen_to = last
    FROM (SELECT max(position) AS last FROM records) AS filled
"""


@dataclass(frozen=True, slots=True)
class _Filled:
    """Databases filled with accounts and with records."""

    accounts_url: str
    audit_url: str


_large: WeakKeyDictionary[Bench, _Filled] = WeakKeyDictionary()


def _among(rows: int) -> Callable[[Bench], Awaitable[Values]]:
    async def run(bench: Bench) -> Values:
        await cache_for_this_machine(bench)
        async with _filled(bench, rows) as filled:
            accounts = await _reads(bench, "accounts", filled.accounts_url, rows)
            searches = await _reads(bench, "audit", filled.audit_url, rows)
            log = await new_log(bench, histories(_INGESTED))
            pace = await ingest_into(filled.audit_url, bench, "audit", log)
        return {
            "ingest_per_s": pace.records_per_s,
            "account_ms": accounts["account"],
            "by_subject_ms": searches["subject"],
            "by_correlation_ms": searches["correlation"],
            "by_type_ms": searches["type"],
        }

    return run


@asynccontextmanager
async def _filled(bench: Bench, rows: int) -> AsyncIterator[_Filled]:
    """Yield databases of so many rows: new ones if that is few, else the same for all repeats."""
    if rows == _FEW:
        async with AsyncExitStack() as made:
            urls = [
                await made.enter_async_context(empty_database(bench, each)) for each in _SERVICES
            ]
            yield await _fill(bench, urls, rows)
    else:
        if bench not in _large:
            urls = [await bench.database(f"{each}_service") for each in _SERVICES]
            _large[bench] = await _fill(bench, urls, rows)
        yield _large[bench]


async def _fill(bench: Bench, urls: Sequence[str], rows: int) -> _Filled:
    for service, url in zip(_SERVICES, urls, strict=True):
        bench.say(f"  {rows:,} rows for the {service} service")
        script = Path(programs.__file__).with_name(_FILLED_BY[service])
        statement = await asyncio.to_thread(script.read_text, encoding="utf-8")
        more = (rows // EVENTS_A_SUBJECT,) if service == "audit" else ()
        connection = await asyncpg.connect(url)
        try:
            indexes = await connection.fetch(_INDEXES)
            for each in indexes:
                await connection.execute(f"DROP INDEX {each['indexname']}")
            for begin in range(1, rows + 1, _AT_ONCE):
                end = min(begin + _AT_ONCE - 1, rows)
                await connection.execute(statement, begin, end, *more)
            for each in indexes:
                await connection.execute(each["indexdef"])
            if service == "audit":
                await connection.execute(_NUMBER_ALL)
                await connection.execute(_ALL_ARE_NUMBERED)
            await connection.execute("VACUUM (ANALYZE)")
        finally:
            await connection.close()
    accounts_url, audit_url = urls
    return _Filled(accounts_url, audit_url)


async def _reads(bench: Bench, service: str, url: str, rows: int) -> Values:
    found = {}
    async with bench.program(["benchmarks.programs.reads", service, url, str(rows)]) as program:
        for _ in range(1 if service == "accounts" else 3):
            name, took_ms = (await program.line()).split()
            found[name] = float(took_ms)
    return found


def _no_slower(metric: str) -> Goal:
    return Goal(metric, at_most=_MOST, against=_AMONG_FEW, side=_AMONG_MANY)


FIGURES: Sequence[Figure] = (
    Figure(
        name="growth",
        title="Ten thousand rows and ten million",
        work=(
            f"One process ingests {_INGESTED:,} events into the audit's records; an account is read"
            " with its latest transactions; pages of records are read by subject, by correlation"
            " id, and by type before a moment. Reads are of random rows, one after the other, and"
            " without HTTP; the median of each. PostgreSQL's cache (shared_buffers) is a quarter of"
            " the machine's memory."
        ),
        metrics=(
            Metric("ingest_per_s", "1/s", more_is_better=True),
            Metric("account_ms", "ms", "an account of a user, p50"),
            Metric("by_subject_ms", "ms", "p50"),
            Metric("by_correlation_ms", "ms", "p50"),
            Metric("by_type_ms", "ms", "p50"),
        ),
        sides=(
            Side(_AMONG_MANY, Kind.OURS, _among(_MANY)),
            Side(_AMONG_FEW, Kind.OURS, _among(_FEW)),
        ),
        goals=(
            Goal("ingest_per_s", at_least=1 / _MOST, against=_AMONG_FEW, side=_AMONG_MANY),
            *map(_no_slower, ("account_ms", "by_subject_ms", "by_correlation_ms", "by_type_ms")),
        ),
        only_in_full=True,
    ),
)
