"""Figures for tests: sides that return given values, and record when they run."""

from collections.abc import Sequence

from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values

OURS, FLOOR, PEER = "ours", "floor", "Peer 1.0"
THROUGHPUT = Metric("throughput", "rows/s", more_is_better=True)
LATENCY = Metric("p95", "ms")
KINDS = {OURS: Kind.OURS, FLOOR: Kind.FLOOR, PEER: Kind.PEER}


class Script:
    """The values that sides return, one entry per run; an exception is raised. Records the runs."""

    def __init__(self, **of_sides: Sequence[Values | Exception]) -> None:
        self._of_sides = {name: list(runs) for name, runs in of_sides.items()}
        self.ran: list[str] = []

    def side(self, name: str, kind: Kind | None = None) -> Side:
        async def run(_bench: object) -> Values:
            self.ran.append(name)
            found = self._of_sides[name].pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        return Side(name, kind or KINDS[name], run)


def figure(
    *goals: Goal, script: Script | None = None, sides: Sequence[str] = (OURS, FLOOR, PEER)
) -> Figure:
    script = script or Script()
    return Figure(
        "relay-backlog",
        "Relay, backlog",
        "200 rows are waiting.",
        [THROUGHPUT, LATENCY],
        [script.side(each) for each in sides],
        goals,
        repeats=3,
        full_repeats=5,
    )
