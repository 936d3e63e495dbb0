"""An agent that does nothing: what it costs to bring an event through Faust.

All sides are timed alike, in the measured process: from the end of the first piece of work (a
chunk, a poll's records, one event) to the end of the last, without the events of the first piece.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from benchmarks.bench import PARTITIONS, Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.figures import audit
from benchmarks.ingest import ingest
from benchmarks.logs import Log, long_histories, payloads
from benchmarks.peers.environments import environment

_BYTES: Final = 500
#: How many records a side reads that takes one at a time.
_SHARE: Final = 20_000
_BARE = "bare aiokafka"
_PLAIN_FAUST = "plain Faust 0.15.3"


async def _log(bench: Bench) -> Log:
    return await payloads(bench, _BYTES, 1_000_000 if bench.full else 500_000)


async def _rate(bench: Bench, program: str, *more: str, python: str = sys.executable) -> Values:
    argv = [f"benchmarks.programs.{program}", bench.cluster.kafka_bootstrap, *more]
    async with bench.program(argv, python=python) as it:
        return {"events_per_s": float(await it.line())}


async def _ours(bench: Bench) -> Values:
    log = await _log(bench)
    return await _rate(bench, "chunk_counter", log.topic, str(log.records), bench.name("bench"))


async def _bare(bench: Bench) -> Values:
    log = await _log(bench)
    return await _rate(bench, "bare_counter", log.topic, str(PARTITIONS), str(log.records))


async def _plain_faust(bench: Bench) -> Values:
    log = await _log(bench)
    return await _rate(bench, "plain_faust", log.topic, str(_SHARE), bench.name("bench"))


def _faststream(how: str) -> Callable[[Bench], Awaitable[Values]]:
    async def run(bench: Bench) -> Values:
        python = str(
            await environment("faststream", ["faststream[kafka]==0.7.8", "uvloop==0.23.0"])
        )
        log = await _log(bench)
        count = log.records if how == "batch" else _SHARE
        reads = (log.topic, str(count), bench.name("bench"), how)
        return await _rate(bench, "faststream_counter", *reads, python=python)

    return run


async def _passing_over(bench: Bench) -> Values:
    log = await long_histories(bench, audit.count(bench))
    return {"events_per_s": (await ingest(bench, "accounts", log)).records_per_s}


FIGURES: Sequence[Figure] = (
    Figure(
        name="agent-no-op",
        title="Events through an agent that does nothing",
        work=(
            f"A topic of {PARTITIONS} partitions holds records of {_BYTES} bytes; an agent counts"
            f" them. A side that takes them one by one reads {_SHARE:,} of them."
        ),
        metrics=(Metric("events_per_s", "1/s", more_is_better=True),),
        sides=(
            Side("chunks through Faust", Kind.OURS, _ours),
            Side(
                "with progress and inbox in PostgreSQL",
                Kind.OURS,
                _passing_over,
                "the accounts service skips events that it has no handler for; measured from"
                " outside, by its progress",
            ),
            Side(_BARE, Kind.FLOOR, _bare, "no consumer group, no agents"),
            Side(_PLAIN_FAUST, Kind.PEER, _plain_faust, "acknowledges each event"),
            Side(
                "FastStream 0.7.8", Kind.PEER, _faststream("one"), "acknowledges before it handles"
            ),
            Side(
                "FastStream 0.7.8, batches",
                Kind.PEER,
                _faststream("batch"),
                "acknowledges before it handles",
            ),
        ),
        goals=(
            Goal("events_per_s", at_least=20, against=_PLAIN_FAUST, only_in_full=True),
            Goal("events_per_s", at_least=0.6, against=_BARE),
        ),
    ),
)
