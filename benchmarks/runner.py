"""Runs figures: every side of a figure once a round, so that other load affects all alike."""

import asyncio
import math
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Kind, Side, Unavailable, Values
from benchmarks.results import FigureResult, Result, SideResult, circumstances
from benchmarks.signing_up import warm_up
from benchmarks.verdicts import judge
from benchmarks.words import values
from local_cluster.testing import RunningCluster, running_cluster
from services import SERVICES

# Longer than any side takes; without it, one that hangs would hold up all others.
_QUICK_WITHIN_S = 180.0
_FULL_WITHIN_S = 7_200.0
# All load comes from one network, which has no more than a share of a gateway's connections.
_NO_SHARES = {
    "GATEWAY_HTTP_MAX_CONNECTIONS_PER_NETWORK": "1000",
    "GATEWAY_MAX_CONNECTIONS_PER_NETWORK": "100",
}


@dataclass
class _Running:
    """A side, and its results until now."""

    side: Side
    repeats: list[Values | None] = field(default_factory=list)
    unavailable: str | None = None
    failed: str | None = None

    @property
    def out(self) -> bool:
        return self.unavailable is not None or self.failed is not None

    def result(self) -> SideResult:
        side = self.side
        return SideResult(
            side.name, side.kind, side.does_less, self.repeats, self.unavailable, self.failed
        )


async def measure(figure: Figure, bench: Bench) -> FigureResult:
    """Run each side of a figure once a round, and return the results.

    Peers run in full runs only. A side that can't run here, or fails, is left out of the following
    rounds; the others continue.
    """
    running = [_Running(each) for each in figure.sides if bench.full or each.kind is not Kind.PEER]
    rounds = figure.full_repeats if bench.full else figure.repeats
    for number in range(rounds):
        bench.say(f"{figure.name}: round {number + 1} of {rounds}")
        # In alternation, so that no side is always the first.
        for each in running[:: -1 if number % 2 else 1]:
            each.repeats.append(None if each.out else await _once(figure, each, bench))
    results = [each.result() for each in running]
    return FigureResult(
        figure.name,
        figure.title,
        figure.work,
        figure.metrics,
        results,
        judge(figure, {each.name: each.repeats for each in results}, full=bench.full),
    )


async def _once(figure: Figure, running: _Running, bench: Bench) -> Values | None:
    name = running.side.name
    try:
        async with asyncio.timeout(_FULL_WITHIN_S if bench.full else _QUICK_WITHIN_S):
            found = dict(await running.side.run(bench))
        _check(figure, found)
    except Unavailable as error:
        running.unavailable = str(error)
        bench.say(f"  {name}: can't run here: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it is, the other sides continue
        running.failed = f"{type(error).__name__}: {error}"
        log = bench.directory / "logs" / f"{bench.name(f'failed-{figure.name}')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        bench.say(f"  {name}: failed: {running.failed} ({log})")
    else:
        bench.say(f"  {name}: {values(figure.metrics, found)}")
        return found
    return None


def _check(figure: Figure, found: Values) -> None:
    """:raises ValueError: a metric that the figure does not have, or a value that is no number"""
    unknown = set(found) - {each.name for each in figure.metrics}
    if unknown:
        raise ValueError(f"{figure.name} has no metric {', '.join(sorted(unknown))}")
    if not found or not all(math.isfinite(each) for each in found.values()):
        raise ValueError(f"no figures: {dict(found)}")


def measure_all(
    figures: Sequence[Figure],
    directory: Path,
    *,
    full: bool,
    say: Callable[[str], None],
    measured: Callable[[Result], None],
) -> Result:
    """Start a cluster in a directory and run figures on it; first those that need the services.

    :param say: prints how far the run is
    :param measured: is called after each figure, with the result so far
    """
    first = [each for each in figures if each.needs_services]
    then = [each for each in figures if not each.needs_services]
    say("starting Kafka, PostgreSQL and the services" if first else "starting Kafka and PostgreSQL")
    os.environ.update(_NO_SHARES)
    without = () if first else [each.name for each in SERVICES]
    with running_cluster(directory / "cluster", short_lived=False, without=without) as cluster:
        bench = Bench(cluster, directory, full=full, say=say)
        result = circumstances(asyncio.run(_postgres_version(cluster)), full=full)
        if first:
            say("warming up")
            asyncio.run(warm_up(bench))
        result = asyncio.run(_measure_each(first, bench, result, measured))
        if then:
            _stop_services(cluster)
            result = asyncio.run(_measure_each(then, bench, result, measured))
    order = [each.name for each in figures]
    return replace(result, figures=sorted(result.figures, key=lambda each: order.index(each.name)))


async def _measure_each(
    figures: Sequence[Figure], bench: Bench, result: Result, measured: Callable[[Result], None]
) -> Result:
    for figure in figures:
        result = replace(result, figures=[*result.figures, await measure(figure, bench)])
        measured(result)
    return result


async def _postgres_version(cluster: RunningCluster) -> str:
    connection = await asyncpg.connect(cluster.superuser_url)
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


def _stop_services(cluster: RunningCluster) -> None:
    """Stop the services, so that only Kafka and PostgreSQL run."""
    running = cluster.processes()
    for service in reversed(SERVICES):
        if service.name in running:
            cluster.stop(service.name)
