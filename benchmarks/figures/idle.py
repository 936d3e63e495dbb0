"""What the system costs while nothing happens."""

import asyncio
import time
from typing import Final

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.processors import used_s
from benchmarks.signing_up import OURS, drained, untroubled

_OTHERS: Final = ("postgres", "kafka")
# Consumers ask less often some time after the last event.
_QUIET_S: Final = 10.0


async def idle(bench: Bench) -> Values:
    await untroubled(bench)
    await drained(bench)
    await asyncio.sleep(_QUIET_S)
    running = bench.cluster.processes()
    before_s = {name: used_s(running[name].pid) for name in (*OURS, *_OTHERS)}
    began_s = time.monotonic()
    await asyncio.sleep(60 if bench.full else 10)
    took_s = time.monotonic() - began_s
    used = {name: (used_s(running[name].pid) - before_s[name]) / took_s for name in before_s}
    return {"ours": sum(used[name] for name in OURS), **used}


FIGURES: Final = (
    Figure(
        name="idle",
        title="While nothing happens",
        work="All services run and are ready, and nobody asks anything: the processor time they use"
        " in 60 s (10 s in quick runs), begun 10 s after the last event.",
        metrics=[
            Metric("ours", "processors", "all of our processes together"),
            *(Metric(name, "processors") for name in (*OURS, *_OTHERS)),
        ],
        sides=[Side("ours", Kind.OURS, idle)],
        goals=[Goal("ours", at_most=0.05)],
        needs_services=True,
    ),
)
