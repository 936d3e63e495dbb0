"""Audit ingest: from a topic into the audit service's records."""

from collections.abc import Sequence
from functools import partial

from benchmarks.bench import PARTITIONS, Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.ingest import CHUNK, empty_database, ingest, pace
from benchmarks.logs import EVENTS_A_SUBJECT, Log, long_histories
from benchmarks.peers import jdbc_sink

_TWO = "audit service, two workers"
_BARE = "bare aiokafka and asyncpg"


def count(bench: Bench) -> int:
    return 200_000 if bench.full else 50_000


async def _log(bench: Bench) -> Log:
    return await long_histories(bench, count(bench))


async def _ours(bench: Bench, workers: int = 1) -> Values:
    pace = await ingest(bench, "audit", await _log(bench), workers=workers)
    return {"records_per_s": pace.records_per_s}


async def _bare(bench: Bench) -> Values:
    log = await _log(bench)
    async with empty_database(bench, "audit") as url:
        argv = [bench.cluster.kafka_bootstrap, log.topic, str(PARTITIONS), url, str(CHUNK)]
        async with bench.program(["benchmarks.programs.bare_ingest", *argv]) as program:
            return {"records_per_s": (await pace(bench, url, log.records, [program])).records_per_s}


FIGURES: Sequence[Figure] = (
    Figure(
        name="audit-ingest",
        title="Audit ingest",
        work=(
            f"Events of 500 to 700 bytes, {EVENTS_A_SUBJECT} of each subject and far apart, in"
            f" {PARTITIONS} partitions. Each is stored byte for byte with its hash and columns;"
            " repeats and gaps are detected. Measured from outside, by progress, from when it first"
            " moves. Each side begins with an empty database."
        ),
        metrics=(Metric("records_per_s", "1/s", more_is_better=True),),
        sides=(
            Side("audit service, one worker", Kind.OURS, _ours),
            Side(_TWO, Kind.OURS, partial(_ours, workers=2)),
            Side(
                _BARE,
                Kind.FLOOR,
                _bare,
                "the same rows in as many transactions; no schema is checked, nothing is tried"
                " again, nothing can be parked",
            ),
            Side(jdbc_sink.NAME, Kind.PEER, jdbc_sink.jdbc_sink, jdbc_sink.DOES_LESS),
        ),
        goals=(
            Goal("records_per_s", at_least=0.75, against=_BARE),
            Goal(
                "records_per_s",
                at_least=0.75,
                against=jdbc_sink.NAME,
                side=_TWO,
                only_in_full=True,
            ),
        ),
    ),
)
