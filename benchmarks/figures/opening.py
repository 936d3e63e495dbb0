"""Account opening: from sign-ups to accounts, first entries and outbox rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks import programs
from benchmarks.bench import PARTITIONS, Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.ingest import CHUNK, Pace, empty_database, ingest, pace
from benchmarks.logs import sign_ups
from benchmarks.postgres import program_of

_PGBENCH = "pgbench 18"
_SCRIPT: Final = Path(programs.__file__).with_name("opening.sql")


def count(bench: Bench) -> int:
    return 100_000 if bench.full else 20_000


async def _ours(bench: Bench) -> Values:
    log = await sign_ups(bench, count(bench))
    return {"openings_per_s": (await ingest(bench, "accounts", log)).records_per_s}


async def _floor(bench: Bench) -> Values:
    async with empty_database(bench, "accounts") as url:
        return {"openings_per_s": (await pgbench(bench, url, count(bench))).records_per_s}


async def pgbench(bench: Bench, url: str, count: int) -> Pace:
    """Open at least so many accounts by SQL alone, in a database of the accounts service."""
    await _begin(url)
    argv = [
        str(program_of("pgbench")),
        url,
        "--no-vacuum",
        "--protocol=prepared",
        f"--file={_SCRIPT}",
    ]
    # With so many transactions no client ends before the last counted one.
    sizes = [f"--client={PARTITIONS}", f"--transactions={count}"]
    async with bench.command([*argv, *sizes], name="pgbench") as running:
        return await pace(bench, url, count, [running])


async def _begin(url: str) -> None:
    """Insert the rows of progress that the script moves, one for each client."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO progress"
            " (subscriber, topic, topic_id, partition, next_offset, updated_at)"
            " SELECT 'floor', 'floor', gen_random_uuid(), n, 0, now()"
            " FROM generate_series(0, $1::integer - 1) AS n",
            PARTITIONS,
        )
    finally:
        await connection.close()


FIGURES: Sequence[Figure] = (
    Figure(
        name="account-opening",
        title="Account opening by one process",
        work=(
            f"Sign-ups of different users in {PARTITIONS} partitions: inbox, account, first entry"
            f" and outbox, in one transaction for up to {CHUNK} of them. Measured from outside, by"
            " progress, from when it first moves. Each side begins with an empty database."
        ),
        metrics=(Metric("openings_per_s", "1/s", more_is_better=True),),
        sides=(
            Side("accounts service", Kind.OURS, _ours),
            Side(
                _PGBENCH,
                Kind.FLOOR,
                _floor,
                "the server makes the rows itself: nothing is read from Kafka, parsed or sent",
            ),
        ),
        goals=(
            Goal(
                "openings_per_s",
                at_least=6_000,
                or_else=Goal("openings_per_s", at_least=0.5, against=_PGBENCH),
            ),
        ),
    ),
)
