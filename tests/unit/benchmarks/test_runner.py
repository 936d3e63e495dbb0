"""Sides run in alternation, and one that fails does not stop the others."""

from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.bench import Bench
from benchmarks.figure import Goal, Unavailable, Values
from benchmarks.runner import measure
from benchmarks.verdicts import Outcome
from local_cluster.testing import RunningCluster

from .figures import FLOOR, OURS, PEER, Script, figure

_NO_CLUSTER = cast("RunningCluster", None)
AT_LEAST_HALF = Goal("throughput", at_least=0.5, against=FLOOR)


def came_to(throughput: float, times: int) -> list[Values | Exception]:
    return [{"throughput": throughput}] * times


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def quick(tmp_path: Path, said: list[str]) -> Bench:
    return Bench(_NO_CLUSTER, tmp_path, full=False, say=said.append)


@pytest.fixture
def full(tmp_path: Path, said: list[str]) -> Bench:
    return Bench(_NO_CLUSTER, tmp_path, full=True, say=said.append)


def script(**of_sides: Any) -> Script:
    """All succeed, except those that are named."""
    return Script(**{OURS: came_to(80, 5), FLOOR: came_to(100, 5), PEER: came_to(20, 5)} | of_sides)


class TestRounds:
    async def test_alternate_the_order_of_the_sides(self, quick: Bench) -> None:
        sides = script()

        await measure(figure(script=sides), quick)

        assert sides.ran == [OURS, FLOOR, FLOOR, OURS, OURS, FLOOR]

    async def test_of_a_full_run_are_more_and_have_the_peers(self, full: Bench) -> None:
        sides = script()

        result = await measure(figure(script=sides), full)

        assert sides.ran == [OURS, FLOOR, PEER, PEER, FLOOR, OURS] * 2 + [OURS, FLOOR, PEER]
        assert [len(each.repeats) for each in result.sides] == [5, 5, 5]

    async def test_are_all_kept_and_judged(self, quick: Bench) -> None:
        result = await measure(figure(AT_LEAST_HALF, script=script()), quick)

        assert result.ours.values("throughput") == [80, 80, 80]
        assert [each.outcome for each in result.verdicts] == [Outcome.MET]
        assert not result.failed


class TestASideThatCannotRunHere:
    async def test_is_reported_once_and_is_no_failure(self, full: Bench, said: list[str]) -> None:
        sides = script(**{PEER: [Unavailable("no Java")]})

        result = await measure(figure(AT_LEAST_HALF, script=sides), full)

        assert [line for line in said if "no Java" in line] == [
            "  Peer 1.0: can't run here: no Java"
        ]
        assert sides.ran.count(PEER) == 1
        assert result.sides[2].unavailable == "no Java"
        assert not result.failed


class TestASideThatFails:
    async def test_is_reported_and_the_others_continue(self, quick: Bench, said: list[str]) -> None:
        sides = script(**{FLOOR: [*came_to(100, 1), OSError("gone")]})

        result = await measure(figure(AT_LEAST_HALF, script=sides), quick)

        assert any("floor: failed: OSError: gone" in line for line in said)
        assert result.failed
        assert sides.ran == [OURS, FLOOR, FLOOR, OURS, OURS]
        assert result.ours.values("throughput") == [80, 80, 80]
        # Of the one round that had both.
        assert result.verdicts[0].per_round == (0.8,)

    async def test_leaves_a_log_with_the_traceback(self, quick: Bench, tmp_path: Path) -> None:
        await measure(figure(script=script(**{OURS: [OSError("gone")]})), quick)

        (log,) = (tmp_path / "logs").iterdir()
        assert "Traceback" in log.read_text()

    @pytest.mark.parametrize(
        "found", [{}, {"thruput": 1.0}, {"throughput": float("nan")}, {"throughput": float("inf")}]
    )
    async def test_is_one_with_unknown_metrics_or_no_numbers(
        self, quick: Bench, found: Values
    ) -> None:
        result = await measure(figure(script=script(**{OURS: [found]})), quick)

        assert result.failed
