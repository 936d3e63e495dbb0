"""Two worker processes against one, on the same machine, Kafka and PostgreSQL."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from benchmarks.bench import PARTITIONS, Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.figures import audit, opening
from benchmarks.ingest import Pace, ingest
from benchmarks.logs import long_histories, sign_ups

_ONE, _TWO = "one worker", "two workers"
_AT_LEAST: Final = 1.6
#: From this share of its processors on, the machine is the limit.
_IN_USE: Final = 0.9


def _workers(number: int) -> Callable[[Bench], Awaitable[Values]]:
    async def run(bench: Bench) -> Values:
        histories = await long_histories(bench, audit.count(bench))
        kept = await ingest(bench, "audit", histories, workers=number)
        users = await sign_ups(bench, opening.count(bench))
        opened = await ingest(bench, "accounts", users, workers=number)
        return {**_values("ingest", kept), **_values("opening", opened)}

    return run


def _values(work: str, pace: Pace) -> Values:
    return {
        f"{work}_per_s": pace.records_per_s,
        f"{work}_cores": pace.cores,
        f"{work}_workers_cores": pace.workers_cores,
        f"{work}_postgres_cores": pace.postgres_cores,
        f"{work}_kafka_cores": pace.kafka_cores,
    }


def _metrics(work: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{work}_per_s", "1/s", more_is_better=True),
        Metric(f"{work}_cores", "processors", "processors in use on the whole machine"),
        Metric(f"{work}_workers_cores", "processors"),
        Metric(f"{work}_postgres_cores", "processors"),
        Metric(f"{work}_kafka_cores", "processors"),
    )


def _goal(work: str) -> Goal:
    all_in_use = _IN_USE * (os.cpu_count() or 1)
    return Goal(
        f"{work}_per_s",
        at_least=_AT_LEAST,
        against=_ONE,
        side=_TWO,
        or_else=Goal(f"{work}_cores", at_least=all_in_use, side=_TWO),
    )


FIGURES: Sequence[Figure] = (
    Figure(
        name="two-workers",
        title="Two workers against one",
        work=(
            f"Audit ingest and account opening as in their own figures, {PARTITIONS} partitions,"
            " by one worker process and by two that share them. All join before the first begins."
            " Where two are not faster, the processors in use show whether the machine was the"
            " limit."
        ),
        metrics=(*_metrics("ingest"), *_metrics("opening")),
        sides=(
            Side(_TWO, Kind.OURS, _workers(2)),
            Side(_ONE, Kind.OURS, _workers(1)),
        ),
        goals=(_goal("ingest"), _goal("opening")),
    ),
)
