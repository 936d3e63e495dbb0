"""The command line: what it refuses, and what its exit codes mean."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import page, results
from benchmarks.figure import Figure, Goal
from benchmarks.results import FigureResult, Result, SideResult, circumstances
from benchmarks.verdicts import judge
from local_cluster.errors import ClusterError

from .figures import KINDS, LATENCY, OURS, THROUGHPUT, figure

AT_LEAST_50 = Goal("throughput", at_least=50)
Measure = Callable[..., Result]


def came_to(throughput: float, failed: str | None = None) -> Measure:
    """Takes the place of the runner: no cluster, and this result."""

    def measure_all(figures: Sequence[Figure], directory: Path, *, full: bool, **_: Any) -> Result:
        directory.mkdir(parents=True)
        rounds = {OURS: [{"throughput": throughput}]}
        measured = [
            FigureResult(
                each.name,
                each.title,
                each.work,
                [THROUGHPUT, LATENCY],
                [SideResult(OURS, KINDS[OURS], "", rounds[OURS], failed=failed)],
                judge(each, rounds, full=full),
            )
            for each in figures
        ]
        return replace(circumstances("18.6", full=full), figures=measured)

    return measure_all


def stopped_after_one(
    figures: Sequence[Figure],
    directory: Path,
    *,
    full: bool,
    measured: Callable[[Result], None],
    **_: Any,
) -> Result:
    measured(came_to(60)(figures[:1], directory, full=full))
    raise KeyboardInterrupt


def raises(error: BaseException) -> Measure:
    def measure_all(_figures: object, directory: Path, **_: Any) -> Result:
        directory.mkdir(parents=True)
        raise error

    return measure_all


class Bench:
    """The command in its own repository, which has two figures."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._patch = monkeypatch
        (root / "docs").mkdir()
        two = (figure(AT_LEAST_50), replace(figure(), name="growth", only_in_full=True))
        monkeypatch.setattr(command, "FIGURES", two)
        monkeypatch.setattr(command, "REPOSITORY", root)
        monkeypatch.setattr(results, "DIRECTORY", root / "benchmarks" / "results")
        self.comes_to(came_to(60))

    def comes_to(self, measure: Measure) -> None:
        self._patch.setattr(command, "measure_all", measure)

    @property
    def results(self) -> list[str]:
        return [each.name for each in (self.root / "benchmarks" / "results").glob("*")]

    @property
    def left_behind(self) -> list[Path]:
        return list((self.root / ".local" / "bench").glob("*"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


class TestTheExitCode:
    @pytest.mark.parametrize(
        ("measure", "code"),
        [(came_to(60), 0), (came_to(40), 1), (came_to(60, failed="OSError"), 1)],
    )
    def test_is_1_when_a_goal_is_missed_or_a_side_failed(
        self, bench: Bench, measure: Measure, code: int
    ) -> None:
        bench.comes_to(measure)

        assert command.main([]) == code

    def test_is_explained_by_the_last_line(
        self, bench: Bench, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bench.comes_to(came_to(40))

        command.main([])

        last = capsys.readouterr().out.splitlines()[-1]
        assert last == "relay-backlog 40 rows/s (goal ≥ 50 rows/s) SHORT"

    @pytest.mark.parametrize(
        ("error", "code"), [(KeyboardInterrupt(), 130), (ClusterError("no Java"), 1)]
    )
    def test_of_a_run_that_is_stopped_or_cannot_begin(
        self, bench: Bench, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bench.comes_to(raises(error))

        assert command.main([]) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert bench.results == []

    @pytest.mark.parametrize(
        "arguments",
        [["--only", "relay"], ["--only", "growth"], ["page", "none.json"], ["page", "Makefile"]],
    )
    def test_of_wrong_arguments_is_2_with_one_line(
        self, bench: Bench, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(arguments) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


class TestFiles:
    def test_of_a_quick_run_are_its_results(self, bench: Bench) -> None:
        command.main([])

        (name,) = bench.results
        assert name.endswith("-quick.json")
        assert list((bench.root / "docs").iterdir()) == []

    def test_of_a_full_run_include_the_page(self, bench: Bench) -> None:
        command.main(["--full"])

        assert len(bench.results) == 1
        assert "relay-backlog" in (bench.root / "docs" / "benchmarks.md").read_text()

    def test_of_a_run_that_is_stopped_have_what_was_measured_by_then(self, bench: Bench) -> None:
        bench.comes_to(stopped_after_one)

        assert command.main(["--full"]) == 130

        (name,) = bench.results
        kept = results.read(bench.root / "benchmarks" / "results" / name)
        assert [each.name for each in kept.figures] == ["relay-backlog"]

    def test_of_single_figures_are_not_written(self, bench: Bench) -> None:
        assert command.main(["--only", "relay-backlog"]) == 0
        assert command.main(["--full", "--only", "growth"]) == 0

        assert bench.results == []
        assert list((bench.root / "docs").iterdir()) == []

    def test_of_a_run_that_failed_include_its_logs(self, bench: Bench) -> None:
        command.main([])
        assert bench.left_behind == []

        bench.comes_to(raises(KeyboardInterrupt()))
        command.main([])
        assert bench.left_behind == []

        bench.comes_to(came_to(60, failed="OSError"))
        command.main([])
        assert len(bench.left_behind) == 1


class TestOthers:
    def test_the_list_has_the_figures_of_full_runs_too(
        self, bench: Bench, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(["--list"]) == 0

        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
            "relay-backlog",
            "growth",
        ]

    def test_the_page_is_drawn_again_from_a_file(self, bench: Bench) -> None:
        command.main([])
        (name,) = bench.results

        assert command.main(["page", str(bench.root / "benchmarks" / "results" / name)]) == 0

        assert page.NOTES.read_text() in (bench.root / "docs" / "benchmarks.md").read_text()
