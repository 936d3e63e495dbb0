"""How verdicts are written, above all on the last line of a run."""

import pytest

from benchmarks.figure import Goal
from benchmarks.results import FigureResult, SideResult
from benchmarks.verdicts import Rounds, judge
from benchmarks.words import cell, last_line, number

from .figures import FLOOR, KINDS, LATENCY, OURS, PEER, THROUGHPUT, figure


def result(goals: list[Goal], rounds: Rounds, failed: str | None = None) -> FigureResult:
    sides = [SideResult(name, KINDS[name], "", each) for name, each in rounds.items()]
    if failed:
        sides.append(SideResult(PEER, KINDS[PEER], "", [], failed=failed))
    verdicts = judge(figure(*goals), rounds, full=True)
    return FigureResult(
        "relay-backlog", "Relay, backlog", "", [THROUGHPUT, LATENCY], sides, verdicts
    )


class TestTheLastLine:
    def test_is_each_ratio_against_its_goal(self) -> None:
        found = result(
            [Goal("throughput", at_least=0.7, against=FLOOR)],
            {OURS: [{"throughput": 81.0}], FLOOR: [{"throughput": 100.0}]},
        )

        assert last_line([found]) == "relay-backlog 0.81 of floor (goal ≥ 0.7) ok"

    def test_names_goals_that_are_missed_or_not_measured_and_failures(self) -> None:
        found = result(
            [Goal("p95", at_most=60), Goal("throughput", at_least=2, against=PEER)],
            {OURS: [{"throughput": 81.0, "p95": 61.0}]},
            failed="OSError",
        )

        assert last_line([found]) == (
            "relay-backlog FAILED; relay-backlog p95 61 ms (goal ≤ 60 ms) SHORT;"
            " not measured: relay-backlog throughput of Peer 1.0"
        )

    def test_without_goals_says_so(self) -> None:
        assert last_line([]) == "no figure has a goal"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0, "0"),
        (12_345.6, "12,346"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (7.0, "7"),
        (0.0123, "0.012"),
        (-1.5, "-1.50"),
    ],
)
def test_a_number_has_about_three_digits(value: float, read: str) -> None:
    assert number(value) == read


@pytest.mark.parametrize(
    ("values", "read"), [([], ""), ([3.0], "3"), ([3.0, 1.0, 2.5], "2.50 (1 to 3)")]
)
def test_a_cell_has_the_median_the_least_and_the_greatest(values: list[float], read: str) -> None:
    side = SideResult(OURS, KINDS[OURS], "", [{"p95": each} for each in values])

    assert cell(side, "p95") == read
