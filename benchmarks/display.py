"""Prints a figure's results."""

from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.results import FigureResult
from benchmarks.verdicts import Outcome, Verdict
from benchmarks.words import TIMES, base, bound, cell, number

_COLOURS: Final = {
    Outcome.MET: "green",
    Outcome.WITHIN: "yellow",
    Outcome.SHORT: "bold red",
    Outcome.NO_RATIO: "bold red",
    Outcome.NOT_MEASURED: "dim",
}


def show(console: Console, figure: FigureResult) -> None:
    """Print each side's medians with the least and the greatest, and each goal."""
    console.print(f"\n[bold]{figure.title}[/]")
    measured = [
        each for each in figure.metrics if any(side.values(each.name) for side in figure.sides)
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("median (least to greatest)")
    for metric in measured:
        table.add_column(f"{metric.name}, {metric.unit}", justify="right")
    for side in figure.sides:
        table.add_row(side.name, *(cell(side, each.name) for each in measured))
    console.print(table)
    for verdict in figure.verdicts:
        console.print(f"  {_sentence(figure, verdict)}")
    console.print()


def _sentence(figure: FigureResult, verdict: Verdict) -> str:
    goal = verdict.goal
    unit = figure.metric(goal.metric).unit
    came = ""
    if verdict.value is not None:
        of = f" {TIMES} {base(goal)}" if base(goal) else f" {unit}"
        came = f" {number(verdict.value)} ± {number(verdict.spread)}{of}"
    who = f"{goal.side}: " if goal.side else ""
    colour = _COLOURS[verdict.outcome]
    return f"{who}{goal.metric}{came}, goal {bound(goal, unit)}: [{colour}]{verdict.outcome}[/]"
