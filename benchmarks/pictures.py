"""One picture per figure: bars for ours, the floor and the peers, their spread, and the goals."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from io import StringIO
from itertools import groupby
from statistics import median
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmarks.figure import Goal, Kind, Metric
from benchmarks.results import FigureResult, SideResult
from benchmarks.verdicts import Outcome, Verdict
from benchmarks.words import bound, number

_PAPER, _INK, _SOFT, _GRID = "#fffffe", "#1c1e21", "#6b7280", "#e3e6ea"
_BARS: Final = {Kind.OURS: "#2563a8", Kind.FLOOR: "#a9b3bf", Kind.PEER: "#d9a866"}
_WHISKER = "#3b424b"
_MET, _NEAR, _SHORT = "#1b7f4b", "#a36a00", "#b3261e"
_LINES: Final = {Outcome.MET: _MET, Outcome.WITHIN: _NEAR}
# Dark colours by light ones: a program that ignores style sheets shows the light ones.
_DARK: Final = {
    _PAPER: "#16181b",
    _INK: "#e6e8ea",
    _SOFT: "#9aa3ad",
    _GRID: "#2e3338",
    _BARS[Kind.OURS]: "#5ea2ef",
    _BARS[Kind.FLOOR]: "#5d6771",
    _BARS[Kind.PEER]: "#a87a3c",
    _WHISKER: "#dfe3e8",
    _MET: "#56d393",
    _NEAR: "#f0b440",
    _SHORT: "#ff7b72",
}
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "text.color": _INK,
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
}
# Inches. Numbers and goals of single bars are in a column on the right.
_WIDTH, _LEFT, _RIGHT = 9.0, 2.5, 2.6
_INSIDE: Final = _WIDTH - _LEFT - _RIGHT
_ROW, _TITLE, _GOAL, _AXIS = 0.36, 0.36, 0.22, 0.4
_LABEL_CHARACTERS: Final = 34


@dataclass
class _Row:
    """A bar."""

    label: str
    kind: Kind
    values: Sequence[float]
    goal: "_Line | None" = None
    """A goal for this bar alone."""


@dataclass
class _Line:
    """Where a goal is."""

    at: float
    label: str
    colour: str


@dataclass
class _Panel:
    """Bars of one unit."""

    title: str
    more_is_better: bool
    rows: list[_Row]
    lines: list[_Line] = field(default_factory=list)

    @property
    def above(self) -> float:
        return _TITLE + _GOAL * len(self.lines)

    @property
    def inside(self) -> float:
        return _ROW * len(self.rows) + 0.1


def picture(figure: FigureResult) -> str | None:
    """Return an SVG that is readable on light and on dark; None if nothing was measured."""
    panels = list(_panels(figure))
    if not panels:
        return None
    height = sum(each.above + each.inside + _AXIS for each in panels)
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH, height))
        top = height
        for each in panels:
            top -= each.above
            axes = canvas.add_axes(
                (
                    _LEFT / _WIDTH,
                    (top - each.inside) / height,
                    _INSIDE / _WIDTH,
                    each.inside / height,
                )
            )
            _draw(axes, each)
            top -= each.inside + _AXIS
        written = StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(written, format="svg", metadata=nothing)
    return _finished(written.getvalue(), figure.title)


def _panels(figure: FigureResult) -> Iterator[_Panel]:
    """Yield a panel per metric; metrics of one unit that only one side has share a panel."""
    for (unit, more, side), group in groupby(_shown(figure), lambda each: _shape(figure, each)):
        metrics = list(group)
        if side is None or len(metrics) == 1:
            yield from (_compared(figure, each) for each in metrics)
            continue
        rows = [
            _Row(each.name, side.kind, side.values(each.name), next(_lines(figure, each), None))
            for each in metrics
        ]
        yield _Panel(unit if side == figure.ours else f"{side.name}, {unit}", more, rows)


def _compared(figure: FigureResult, metric: Metric) -> _Panel:
    rows = [
        _Row(side.name, side.kind, side.values(metric.name)) for side in _having(figure, metric)
    ]
    lines = sorted(_lines(figure, metric), key=lambda each: each.at)
    return _Panel(f"{metric.name}, {metric.unit}", metric.more_is_better, rows, lines)


def _shown(figure: FigureResult) -> list[Metric]:
    """Return the metrics that goals are about, or all if there are no goals."""
    goals = [each.goal for each in figure.verdicts]
    named = {each.metric for each in goals}
    named |= {each.against_metric for each in goals if each.against_metric}
    measured = [each for each in figure.metrics if _having(figure, each)]
    return [each for each in measured if each.name in named] or measured


def _having(figure: FigureResult, metric: Metric) -> list[SideResult]:
    return [each for each in figure.sides if each.values(metric.name)]


def _shape(figure: FigureResult, metric: Metric) -> tuple[str, bool, SideResult | None]:
    """Return what the metrics of a panel have in common; the side only if it is the only one."""
    having = _having(figure, metric)
    return metric.unit, metric.more_is_better, having[0] if len(having) == 1 else None


def _lines(figure: FigureResult, metric: Metric) -> Iterator[_Line]:
    for verdict in figure.verdicts:
        goal = verdict.goal
        if goal.metric == metric.name and verdict.value is not None:
            asked = goal.at_least if goal.at_least is not None else goal.at_most
            assert asked is not None
            yield _Line(
                asked * _base(figure, goal),
                f"{bound(goal, metric.unit)}, {verdict.outcome}",
                _colour(verdict),
            )


def _base(figure: FigureResult, goal: Goal) -> float:
    if goal.against is None and goal.against_metric is None:
        return 1.0
    name = goal.against or goal.side or figure.ours.name
    side = next(each for each in figure.sides if each.name == name)
    return median(side.values(goal.against_metric or goal.metric))


def _colour(verdict: Verdict) -> str:
    return _LINES.get(verdict.outcome, _SHORT)


def _draw(axes: Axes, panel: _Panel) -> None:
    goals = [*panel.lines, *(each.goal for each in panel.rows if each.goal)]
    longest = max([each for row in panel.rows for each in row.values] + [each.at for each in goals])
    end = (longest or 1.0) * 1.04
    axes.set_xlim(0, end)
    axes.set_ylim(len(panel.rows) - 0.36, -0.64)
    for position, row in enumerate(panel.rows):
        _bar(axes, position, row)
    axes.set_yticks(
        range(len(panel.rows)), [textwrap.fill(row.label, _LABEL_CHARACTERS) for row in panel.rows]
    )
    axes.tick_params(axis="y", length=0, labelcolor=_INK, labelsize=9, pad=8)
    axes.tick_params(axis="x", length=0, labelcolor=_SOFT, labelsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    _title(axes, panel)
    _goals(axes, panel, end)


def _bar(axes: Axes, position: int, row: _Row) -> None:
    middle, least, greatest = median(row.values), min(row.values), max(row.values)
    axes.barh(position, middle, height=0.62, color=_BARS[row.kind])
    if greatest > least:
        axes.plot([least, greatest], [position] * 2, color=_WHISKER, linewidth=1.4)
        for each in (least, greatest):
            axes.plot([each] * 2, [position - 0.12, position + 0.12], color=_WHISKER, linewidth=1.4)
    weight = "bold" if row.kind is Kind.OURS else "normal"
    _beside(axes, position, 0.1, number(middle), color=_INK, fontweight=weight)
    if row.goal:
        ends = [position - 0.42, position + 0.42]
        axes.plot([row.goal.at] * 2, ends, color=row.goal.colour, linewidth=1.8)
        _beside(axes, position, 0.75, row.goal.label, color=row.goal.colour, fontsize=9)


def _beside(axes: Axes, position: int, inches: float, text: str, **style: Any) -> None:
    axes.annotate(
        text,
        (1, position),
        xycoords=axes.get_yaxis_transform(),
        xytext=(inches * 72, 0),
        textcoords="offset points",
        va="center",
        **style,
    )


def _title(axes: Axes, panel: _Panel) -> None:
    above = _GOAL * len(panel.lines) * 72 + 8
    axes.annotate(
        panel.title,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, above),
        textcoords="offset points",
        fontweight="bold",
    )
    axes.annotate(
        "more is better" if panel.more_is_better else "less is better",
        (1, 1),
        xycoords="axes fraction",
        xytext=((_RIGHT - 0.15) * 72, above),
        textcoords="offset points",
        ha="right",
        color=_SOFT,
        fontsize=8.5,
    )


def _goals(axes: Axes, panel: _Panel, end: float) -> None:
    """Draw a line for each goal, with its label at the upper end."""

    def goes_right(line: _Line) -> bool:
        return _LEFT + line.at / end * _INSIDE < _WIDTH / 2  # where there is more room

    # In this order no line crosses the label of another.
    lines = reversed(panel.lines) if any(map(goes_right, panel.lines)) else panel.lines
    for level, line in enumerate(lines):
        rightward = goes_right(line)
        top = 1 + (_GOAL * level + 0.06) / panel.inside
        axes.plot(
            [line.at] * 2,
            [0, top],
            transform=axes.get_xaxis_transform(),
            color=line.colour,
            linewidth=1.6,
            linestyle=(0, (4, 2)),
            clip_on=False,
        )
        axes.annotate(
            f"goal {line.label}",
            (line.at, top),
            xycoords=axes.get_xaxis_transform(),
            xytext=(5 if rightward else -5, 0),
            textcoords="offset points",
            ha="left" if rightward else "right",
            va="center",
            color=line.colour,
            fontsize=9,
        )


def _finished(svg: str, title: str) -> str:
    """Add the accessible name and the dark colours."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    style = (
        "<style>text{font-family:system-ui,-apple-system,'Segoe UI',sans-serif!important}"
        f"@media (prefers-color-scheme:dark){{{rules}}}</style>"
    )
    label = f'role="img" aria-label="{escape(title, quote=True)}"'
    head = re.search(r"<svg ([^>]*)>", svg)
    assert head
    body = svg[head.end() :]
    lines = f"<svg {label} {' '.join(head[1].split())}>\n{style}{body}".splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
