"""A run's results are stored completely, and the page is drawn from them alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import page, results
from benchmarks.figure import Goal, Values
from benchmarks.results import FigureResult, Result, SideResult, circumstances
from benchmarks.verdicts import judge
from local_cluster.settings import REPOSITORY

from .figures import FLOOR, KINDS, LATENCY, OURS, PEER, THROUGHPUT, figure

GOALS = (
    Goal("throughput", at_least=0.7, against=FLOOR),
    Goal("throughput", at_least=90, or_else=Goal("p95", at_most=1)),
    Goal("p95", at_most=2, against=PEER),
)
ROUNDS: dict[str, Sequence[Values | None]] = {
    OURS: [{"throughput": 80.0, "p95": 3.0}, {"throughput": 82.0, "p95": 3.2}],
    FLOOR: [{"throughput": 100.0}, None],
    PEER: [None, None],
}


@pytest.fixture
def result() -> Result:
    sides = [
        SideResult(name, KINDS[name], "no dedupe" if name == FLOOR else "", repeats)
        for name, repeats in ROUNDS.items()
    ]
    sides[2] = replace(sides[2], unavailable="no Java | none at all")
    measured = FigureResult(
        "relay-backlog",
        "Relay, backlog",
        "200 rows are waiting.",
        [THROUGHPUT, LATENCY],
        sides,
        judge(figure(*GOALS), ROUNDS, full=True),
    )
    return replace(circumstances("18.6", full=True), figures=[measured])


@pytest.fixture
def drawn(result: Result, tmp_path: Path) -> str:
    return page.draw(result, tmp_path).read_text()


class TestTheFile:
    def test_gives_back_what_was_written(self, result: Result, tmp_path: Path) -> None:
        results.write(result, tmp_path / "results" / "a.json")
        again = results.read(tmp_path / "results" / "a.json")
        results.write(again, tmp_path / "b.json")

        assert (tmp_path / "b.json").read_bytes() == (tmp_path / "results" / "a.json").read_bytes()
        assert again.figures[0].ours.values("p95") == [3.0, 3.2]
        assert [each.value for each in again.figures[0].verdicts] == [0.8, 81.0, None]

    def test_is_named_after_the_day_and_the_kind_of_run(self, result: Result) -> None:
        day = f"{result.measured_at:%Y-%m-%d}"

        assert result.file.name == f"{day}.json"
        assert replace(result, full=False).file.name == f"{day}-quick.json"

    def test_describes_the_machine_without_its_name(self, result: Result, tmp_path: Path) -> None:
        results.write(result, tmp_path / "a.json")
        text = (tmp_path / "a.json").read_text()

        assert set(json.loads(text)["machine"]) == {"processor", "cores", "memory_gb", "kernel"}
        assert str(REPOSITORY) not in text
        assert {"Python", "Kafka", "PostgreSQL", "aiokafka"} <= set(result.versions)

    def test_with_other_content_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("{}")

        with pytest.raises(ValueError, match="full"):
            results.read(tmp_path / "a.json")


class TestThePage:
    def test_has_each_goal_with_its_result(self, drawn: str) -> None:
        rows = [line for line in drawn.splitlines() if line.startswith("| ") and "≥" in line]

        assert [row.rsplit(" | ", 2)[1:] for row in rows] == [
            ["0.80 ± 0 \N{MULTIPLICATION SIGN}", "yes |"],
            ["81 ± 1 rows/s", "**no** |"],
        ]

    def test_lists_what_a_side_does_less_and_which_side_could_not_run(self, drawn: str) -> None:
        assert "- floor: no dedupe\n" in drawn
        assert "- Peer 1.0 could not be run here: no Java \\| none at all\n" in drawn

    def test_ends_with_the_notes(self, drawn: str) -> None:
        assert drawn.endswith(page.NOTES.read_text())

    def test_shows_the_pictures_of_this_run_only(self, result: Result, tmp_path: Path) -> None:
        page.draw(result, tmp_path)
        (tmp_path / "benchmarks" / "of-old.svg").touch()

        target = page.draw(result, tmp_path)

        assert "](benchmarks/relay-backlog.svg)" in target.read_text()
        assert [each.name for each in (tmp_path / "benchmarks").iterdir()] == ["relay-backlog.svg"]


class TestThePicture:
    def test_is_the_same_each_time(self, result: Result, tmp_path: Path) -> None:
        picture = tmp_path / "benchmarks" / "relay-backlog.svg"
        page.draw(result, tmp_path)
        first = picture.read_bytes()
        page.draw(result, tmp_path)

        assert picture.read_bytes() == first

    def test_has_its_words_as_text_and_dark_colours(self, drawn: str, tmp_path: Path) -> None:
        svg = (tmp_path / "benchmarks" / "relay-backlog.svg").read_text()
        root = ElementTree.fromstring(svg)  # noqa: S314 - drawn by us
        words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]

        assert {OURS, FLOOR, "throughput, rows/s", "81", "less is better"} <= set(words)
        assert "prefers-color-scheme:dark" in svg
