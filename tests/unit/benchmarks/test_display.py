"""A figure on a screen: every side and every goal, with its result."""

from io import StringIO

from rich.console import Console

from benchmarks.display import show
from benchmarks.figure import Goal, Values
from benchmarks.results import FigureResult, SideResult
from benchmarks.verdicts import judge

from .figures import FLOOR, KINDS, LATENCY, OURS, PEER, THROUGHPUT, figure


def test_is_plain_text_outside_of_a_terminal() -> None:
    rounds: dict[str, list[Values | None]] = {
        OURS: [{"throughput": 8_000.0}, {"throughput": 9_000.0}],
        FLOOR: [{"throughput": 10_000.0}, {"throughput": 10_000.0}],
    }
    goals = (
        Goal("throughput", at_least=0.7, against=FLOOR),
        Goal("throughput", at_least=2, against=PEER),
    )
    written = StringIO()

    show(
        Console(file=written, highlight=False, soft_wrap=True, width=160),
        FigureResult(
            "relay-backlog",
            "Relay, backlog",
            "",
            [THROUGHPUT, LATENCY],
            [SideResult(name, KINDS[name], "", each) for name, each in rounds.items()],
            judge(figure(*goals), rounds, full=False),
        ),
    )

    lines = [" ".join(each.split()) for each in written.getvalue().splitlines()]
    times = "\N{MULTIPLICATION SIGN}"
    assert "median (least to greatest) throughput, rows/s" in lines
    assert "ours 8,500 (8,000 to 9,000)" in lines
    assert f"throughput 0.85 ± 0.05 {times} floor, goal ≥ 0.7 {times} floor: met" in lines
    assert f"throughput, goal ≥ 2 {times} Peer 1.0: not measured" in lines
