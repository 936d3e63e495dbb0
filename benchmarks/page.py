"""Draws docs/benchmarks.md, and a picture for each figure, from a run's results."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.pictures import picture
from benchmarks.results import FigureResult, Result
from benchmarks.verdicts import Outcome, Verdict
from benchmarks.words import TIMES, base, bound, cell, number
from local_cluster.settings import REPOSITORY

NOTES: Final = REPOSITORY / "benchmarks" / "notes.md"
_MARKS: Final = {Outcome.MET: "yes", Outcome.WITHIN: "within its spread", Outcome.SHORT: "**no**"}


def draw(result: Result, directory: Path) -> Path:
    """Write the page and its pictures into a directory, and return where the page is."""
    pictures = directory / "benchmarks"
    pictures.mkdir(exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    drawn = {each.name: picture(each) for each in result.figures}
    for name, svg in drawn.items():
        if svg is not None:
            (pictures / f"{name}.svg").write_text(svg, encoding="utf-8")
    target = directory / "benchmarks.md"
    with_pictures = {name for name, svg in drawn.items() if svg is not None}
    target.write_text("\n".join(_page(result, with_pictures)) + "\n", encoding="utf-8")
    return target


def _page(result: Result, with_pictures: set[str]) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield from _head(result)
    yield from _summary(result)
    for each in result.figures:
        yield from _figure(each, drawn=each.name in with_pictures)
    yield NOTES.read_text(encoding="utf-8").strip()


def _head(result: Result) -> Iterator[str]:
    machine = result.machine
    kind = "with peers" if result.full else "quick, without peers"
    commit = f" of commit `{result.commit[:12]}`" if result.commit else ""
    changed = ", with files changed" if result.changed else ""
    yield (
        f"Measured on {result.measured_at:%Y-%m-%d} ({kind}){commit}{changed}, on one machine that"
        f" runs everything: {machine.processor}, {machine.cores} cores, {machine.memory_gb:g} GB,"
        f" {machine.kernel}."
    )
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    yield f"{versions}."
    yield (
        f"Every repeat is in [{result.file.name}](../benchmarks/results/{result.file.name});"
        " `make bench` and `make bench-full` measure it again on your machine."
    )
    yield ""


def _summary(result: Result) -> Iterator[str]:
    yield "| figure | ours | goal | measured | met? |"
    yield "|---|---|---|---|---|"
    for figure in result.figures:
        link = f"[{_text(figure.title)}](#{_anchor(figure.title)})"
        for verdict in figure.verdicts:
            unit = figure.metric(verdict.goal.metric).unit
            yield (
                f"| {link} | {_ours(figure, verdict)} | {_text(bound(verdict.goal, unit))} |"
                f" {_came_to(figure, verdict)} |"
                f" {_MARKS.get(verdict.outcome, verdict.outcome)} |"
            )
            link = ""
        if not figure.verdicts:
            yield f"| {link} | | | | |"
    yield ""


def _ours(figure: FigureResult, verdict: Verdict) -> str:
    goal = verdict.goal
    name = goal.side or figure.ours.name
    found = next(each for each in figure.sides if each.name == name).values(goal.metric)
    what = f"{name}, {goal.metric}" if goal.side else goal.metric
    if not found:
        return _text(what)
    return _text(f"{what} {number(median(found))} {figure.metric(goal.metric).unit}")


def _came_to(figure: FigureResult, verdict: Verdict) -> str:
    """Return the median and the spread: ``0.81 ± 0.02``, as a multiple where the goal is one."""
    if verdict.value is None:
        return ""
    unit = TIMES if base(verdict.goal) else figure.metric(verdict.goal.metric).unit
    return f"{number(verdict.value)} ± {number(verdict.spread)} {unit}"


def _figure(figure: FigureResult, *, drawn: bool) -> Iterator[str]:
    yield f"## {figure.title}"
    yield ""
    yield figure.work
    yield ""
    if drawn:
        yield f"![{_text(figure.title)}](benchmarks/{figure.name}.svg)"
        yield ""
    yield from _table(figure)
    ratios = [each for each in figure.verdicts if base(each.goal)]
    yield from (f"- {_sentence(figure, each)}" for each in ratios)
    if ratios:
        yield ""
    yield from _explained(figure)


def _table(figure: FigureResult) -> Iterator[str]:
    metrics = [each for each in figure.metrics if any(s.values(each.name) for s in figure.sides)]
    sides = [each for each in figure.sides if any(each.repeats)]
    if not sides:
        return
    # The longer of the two becomes the rows.
    if len(metrics) > len(sides):
        yield f"| | {' | '.join(_text(each.name) for each in sides)} |"
        yield f"|---|{'---:|' * len(sides)}"
        for metric in metrics:
            cells = " | ".join(cell(side, metric.name) for side in sides)
            yield f"| {_text(f'{metric.name}, {metric.unit}')} | {cells} |"
    else:
        yield f"| | {' | '.join(_text(f'{each.name}, {each.unit}') for each in metrics)} |"
        yield f"|---|{'---:|' * len(metrics)}"
        for side in sides:
            cells = " | ".join(cell(side, metric.name) for metric in metrics)
            yield f"| {_text(side.name)} | {cells} |"
    yield ""
    rounds = len(sides[0].repeats)
    yield (
        f"Medians of {rounds} rounds; in brackets the least and the greatest."
        if rounds > 1
        else "Of one round."
    )
    yield ""


def _sentence(figure: FigureResult, verdict: Verdict) -> str:
    goal = verdict.goal
    asked = bound(goal, figure.metric(goal.metric).unit)
    who = f"{goal.side}, {goal.metric}" if goal.side else goal.metric
    if verdict.value is None:
        return _text(f"{who}, goal {asked}: {verdict.outcome}.")
    asked = asked.removesuffix(f" {TIMES} {base(goal)}")
    return _text(
        f"{who} is {_came_to(figure, verdict)} {base(goal)} ({len(verdict.per_round)} rounds),"
        f" goal {asked}: {verdict.outcome}."
    )


def _explained(figure: FigureResult) -> Iterator[str]:
    """Yield the meaning of each metric, what a side does less, and which sides did not run."""
    lines = [f"{each.name}: {each.what}" for each in figure.metrics if each.what]
    lines += [f"{each.name}: {each.does_less}" for each in figure.sides if each.does_less]
    for each in figure.sides:
        if each.unavailable is not None:
            lines.append(f"{each.name} could not be run here: {each.unavailable}")
        if each.failed is not None:
            lines.append(f"{each.name} failed: {each.failed}")
    if lines:
        yield from (f"- {_text(' '.join(each.split()))}" for each in lines)
        yield ""


def _anchor(heading: str) -> str:
    kept = "".join(each for each in heading.lower() if each.isalnum() or each in "_- ")
    return kept.replace(" ", "-")


def _text(text: str) -> str:
    return text.replace("|", r"\|")
