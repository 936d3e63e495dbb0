"""How numbers, goals and verdicts are written, on a screen and on the page."""

from collections.abc import Sequence
from statistics import median
from typing import Final

from benchmarks.figure import Goal, Metric, Values
from benchmarks.results import FigureResult, SideResult
from benchmarks.verdicts import Outcome, Verdict

TIMES: Final = "\N{MULTIPLICATION SIGN}"
_SHORT_WORDS: Final = {Outcome.MET: "ok", Outcome.SHORT: "SHORT", Outcome.NO_RATIO: "NO RATIO"}


def number(value: float) -> str:
    """Return a number with about three digits."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def values(metrics: Sequence[Metric], found: Values) -> str:
    """Return one repeat as a line: ``throughput 12,345 rows/s, p95 1.23 ms``."""
    return ", ".join(
        f"{each.name} {number(found[each.name])} {each.unit}"
        for each in metrics
        if each.name in found
    )


def cell(side: SideResult, metric: str) -> str:
    """Return the median, the least and the greatest; empty when there is none."""
    found = side.values(metric)
    if not found:
        return ""
    middle = number(median(found))
    if len(found) == 1:
        return middle
    return f"{middle} ({number(min(found))} to {number(max(found))})"


def bound(goal: Goal, unit: str) -> str:
    """Return what a goal asks for: ``≥ 0.7 x floor``, ``≤ 60 ms``."""
    signs = {"≥": goal.at_least, "≤": goal.at_most}
    numbers = " and ".join(
        f"{sign} {round(it, 3):,.10g}" for sign, it in signs.items() if it is not None
    )
    other = base(goal)
    return f"{numbers} {TIMES} {other}" if other else f"{numbers} {unit}"


def base(goal: Goal) -> str:
    """Return what a goal is a multiple of: ``floor``, ``floor's idle_p95``; or empty."""
    if goal.against is None:
        return goal.against_metric or ""
    return f"{goal.against}'s {goal.against_metric}" if goal.against_metric else goal.against


def compact(figure: FigureResult, verdict: Verdict) -> str:
    """Return a verdict in a few words: ``relay-backlog 0.81 of floor (goal ≥ 0.7) ok``."""
    goal = verdict.goal
    several = len({each.goal.metric for each in figure.verdicts}) > 1
    who = [figure.name, *([goal.side] if goal.side else []), *([goal.metric] if several else [])]
    unit = figure.metric(goal.metric).unit
    value = "nothing" if verdict.value is None else number(verdict.value)
    of = f"of {base(goal)}" if base(goal) else unit
    asked = bound(goal, unit).partition(f" {TIMES} ")[0] if base(goal) else bound(goal, unit)
    outcome = _SHORT_WORDS.get(verdict.outcome, verdict.outcome)
    return f"{' '.join(who)} {value} {of} (goal {asked}) {outcome}"


def last_line(figures: Sequence[FigureResult]) -> str:
    """Return each ratio against its goal, in one line."""
    parts = [
        compact(figure, verdict)
        for figure in figures
        for verdict in figure.verdicts
        if verdict.outcome is not Outcome.NOT_MEASURED
    ]
    missing = [
        f"{figure.name} {verdict.goal.metric}"
        + (f" of {base(verdict.goal)}" if base(verdict.goal) else "")
        for figure in figures
        for verdict in figure.verdicts
        if verdict.outcome is Outcome.NOT_MEASURED
    ]
    failed = [f"{each.name} FAILED" for each in figures if each.failed]
    if missing:
        parts.append(f"not measured: {', '.join(missing)}")
    return "; ".join(failed + parts) or "no figure has a goal"
