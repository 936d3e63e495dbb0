"""The page about a random run: which faults happened when, and their consequences."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from tests.faults.schedule import Kind
from verification.addresses import SERVICES as WITH_DATABASE

if TYPE_CHECKING:
    from tests.faults.observing import Sample
    from tests.faults.random_run import InjectedFault, Outcome

_LEFT, _WIDTH, _ROW, _CHART = 110, 1040, 18, 120
# Shapes, so that the kinds can be distinguished without colours.
_SHAPES: Final = {
    Kind.KILL: ("M-4,-6 4,-6 0,2Z", "kill -9"),
    Kind.DIE: ("M-4,-4 4,4M-4,4 4,-4", "kill -9, and not started again"),
    Kind.TERM: ("M-3,-6H3V0H-3Z", "SIGTERM"),
    Kind.FREEZE: ("", "frozen"),
    Kind.JOIN: ("M-4,2 4,2 0,-6Z", "one more worker"),
    Kind.LEAVE: ("M-4,0 0,-4 4,0 0,4Z", "it stops for good"),
}
_ALONE: Final = """<h2>Workers that died with no other fault</h2>
<p class="soft">How long until the last of their partitions advanced again, and the longest stall of
any other service meanwhile.</p>"""
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #6b7280; --line: #d7dbe0; --paper: #fff;
  --up: #dbe7f3; --down: #e9b44c; --fault: #b3261e; --ice: #3a7ca5; --good: #1b7f4b;
  --s0: #2563a8; --s1: #b4541a; --s2: #1b7f4b; --s3: #7b4bb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa3ad; --line: #3a4047;
  --paper: #16181b; --up: #24384b; --down: #a87a1c; --fault: #ff7b72; --ice: #79c0ff;
  --good: #56d393; --s0: #79b8ff; --s1: #ff9d5c; --s2: #56d393; --s3: #c69cff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1190px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); } .good { color: var(--good); }
.bad { color: var(--fault); } .scroll { overflow-x: auto; }
svg { display: block; font-size: 11px; min-width: 1000px; width: 100%; height: auto; }
svg text { fill: var(--ink); } svg text.soft { fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: .6; } .fault { fill: var(--fault); }
.fault.die { fill: none; stroke: var(--fault); stroke-width: 2; }
.fault.join, .fault.leave { fill: var(--good); } .missed { opacity: .3; }
.up { fill: var(--up); } .down { fill: var(--down); }
.ice { fill: none; stroke: var(--ice); stroke-width: 3; }
.curve { fill: none; stroke-width: 1.4; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.n, th.n { text-align: right; }
ul.key { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem;
  margin: .4rem 0; } ul.key svg { display: inline; width: 14px; min-width: 0; height: 14px;
  vertical-align: -2px; }
"""


def page(outcome: "Outcome") -> str:
    """Return the page; it loads nothing from elsewhere."""
    body = "".join((_head(outcome), _time_line(outcome), _charts(outcome), _tables(outcome)))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Fault run, seed {outcome.seed}</title><style>{_STYLE}</style>{body}</html>\n"
    )


def _head(outcome: "Outcome") -> str:
    lost, slow, load = outcome.verdicts
    verdict = "".join(
        f'<p class="{"bad" if broken else "good"}"><strong>{escape(line)}</strong></p>'
        + "".join(f'<p class="bad">{escape(each)}</p>' for each in broken[:40])
        for line, broken in ((lost, outcome.lost), (slow, outcome.slow))
    )
    restarts = sum(outcome.restarts.values())
    return (
        f"<h1>{outcome.minutes:g} minutes of faults</h1>{verdict}"
        f"<p>{outcome.kills:,} kills and {sum(outcome.counts.values()) - outcome.kills:,} other"
        f" faults; {restarts:,} restarts. {outcome.answered:,} commands were answered,"
        f" {outcome.cut_off:,} cut off, {outcome.repeated:,} sent again. At rest"
        f" {outcome.quiet_after_s:g} s after the last one.</p>"
        f'<p class="soft">Seed {outcome.seed}, {outcome.per_second:g} commands a second;'
        f" {escape(load)}.</p>"
    )


class _Scale:
    """Maps a second of the run to a place on the page."""

    def __init__(self, outcome: "Outcome") -> None:
        self.seconds = max([each.at_s for each in outcome.samples] + [outcome.minutes * 60])

    def x(self, at_s: float) -> float:
        return round(_LEFT + _WIDTH * at_s / self.seconds, 1)

    def grid(self, height: float) -> str:
        step = next(s for s in (10, 30, 60, 300, 600, 1_800, 7_200) if self.seconds / s <= 15)
        return "".join(
            f'<line class="grid" x1="{self.x(at)}" x2="{self.x(at)}" y1="0" y2="{height}"/>'
            f'<text class="soft" x="{self.x(at)}" y="{height + 13}" text-anchor="middle">'
            f"{at // 60}:{at % 60:02}</text>"
            for at in range(0, int(self.seconds) + 1, step)
        )


def _svg(height: float, content: str, label: str) -> str:
    return (
        f'<div class="scroll"><svg viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" role="img"'
        f' aria-label="{escape(label)}">{content}</svg></div>'
    )


def _time_line(outcome: "Outcome") -> str:
    scale = _Scale(outcome)
    names = list(dict.fromkeys(n for each in outcome.samples for n in each.states))
    rows = []
    for number, name in enumerate(names):
        y = number * _ROW
        rows.append(f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        for begin, end, state in _spans(outcome.samples, name):
            width = max(0.6, scale.x(end) - scale.x(begin))
            css = "up" if state == "running" else "down"
            rows.append(
                f'<rect class="{css}" x="{scale.x(begin)}" y="{y + 3}" width="{width:.1f}"'
                f' height="{_ROW - 6}"/>'
            )
        rows += [_mark(each, scale, y) for each in outcome.injected if each.fault.who == name]
    height = len(names) * _ROW
    key = "".join(
        f'<li><svg viewBox="-7 -9 14 14">{_shape(kind)}</svg> {label}</li>'
        for kind, (_, label) in _SHAPES.items()
    )
    return (
        "<h2>Which process had which fault, and when</h2>"
        f'<ul class="key">{key}<li><svg viewBox="0 0 14 14"><rect class="down" width="14"'
        ' height="10" y="2"/></svg> waits to be started again</li></ul>'
        + _svg(height + 18, scale.grid(height) + "".join(rows), "Faults of each process over time")
    )


def _spans(samples: Sequence["Sample"], name: str) -> Iterator[tuple[float, float, str]]:
    """Yield begin, end and state of each time in which a process was in one state."""
    begin, state, last = 0.0, "", 0.0
    for each in samples:
        now = each.states.get(name, state if not each.states else "")
        now = "" if now == "stopped" else now
        if now != state:
            if state:
                yield begin, each.at_s, state
            begin, state = each.at_s, now
        last = each.at_s
    if state:
        yield begin, last, state


def _mark(injected: "InjectedFault", scale: _Scale, y: float) -> str:
    title = f"<title>{escape(str(injected.fault).strip())}</title>"
    missed = " missed" if injected.missed else ""
    if injected.fault.kind is Kind.FREEZE:
        return (
            f'<line class="ice{missed}" x1="{scale.x(injected.at_s)}"'
            f' x2="{scale.x(injected.until_s)}" y1="{y + _ROW / 2}" y2="{y + _ROW / 2}">'
            f"{title}</line>"
        )
    position = f"translate({scale.x(injected.at_s)},{y + _ROW / 2 + 2})"
    return f'<g class="{missed}" transform="{position}">{title}{_shape(injected.fault.kind)}</g>'


def _shape(kind: Kind) -> str:
    if kind is Kind.FREEZE:
        return '<line class="ice" x1="-6" x2="6" y1="-2" y2="-2"/>'
    return f'<path class="fault {kind}" d="{_SHAPES[kind][0]}"/>'


def _charts(outcome: "Outcome") -> str:
    def rate(sample: "Sample") -> Mapping[str, int]:
        return {"all": sample.answered}

    return (
        "<h2>Rows in the outboxes</h2>"
        + _chart(outcome, lambda sample: sample.outboxes, WITH_DATABASE)
        + "<h2>Records that consumers have not handled yet</h2>"
        + _chart(outcome, lambda sample: sample.lags, WITH_DATABASE)
        + "<h2>Commands answered</h2>"
        + _chart(outcome, rate, ("all",))
    )


def _chart(
    outcome: "Outcome", of: Callable[["Sample"], Mapping[str, int]], names: Sequence[str]
) -> str:
    scale = _Scale(outcome)
    top = max([value for each in outcome.samples for value in of(each).values()] + [1])
    key = "".join(
        f'<li><svg viewBox="0 0 14 14"><path class="curve" stroke="var(--s{number})"'
        f' stroke-width="3" d="M0,8H14"/></svg> {escape(name)}</li>'
        for number, name in enumerate(names)
    )
    curves = "".join(
        f'<path class="curve" stroke="var(--s{number})" d="{_path(outcome, of, name, top)}"/>'
        for number, name in enumerate(names)
    )
    labels = "".join(
        f'<text class="soft" x="{_LEFT - 8}" y="{y}" text-anchor="end">{value:,}</text>'
        for y, value in ((_CHART, 0), (10, top))
    )
    keys = f'<ul class="key">{key}</ul>' if len(names) > 1 else ""
    return keys + _svg(
        _CHART + 18, scale.grid(_CHART) + labels + curves, f"{', '.join(names)} over time"
    )


def _path(
    outcome: "Outcome", of: Callable[["Sample"], Mapping[str, int]], name: str, top: int
) -> str:
    """Return the curve, with a gap where there was no answer."""
    scale = _Scale(outcome)
    steps, pen = [], "M"
    # More than two per pixel cannot be seen.
    for each in outcome.samples[:: max(1, len(outcome.samples) // (2 * _WIDTH))]:
        value = of(each).get(name)
        if value is None:
            pen = "M"
            continue
        steps.append(f"{pen}{scale.x(each.at_s)},{round(_CHART - (_CHART - 6) * value / top, 1)}")
        pen = "L"
    return "".join(steps)


def _tables(outcome: "Outcome") -> str:
    figures = outcome.as_dict()
    return "".join(
        (
            _invariants(outcome),
            _ALONE,
            _table(
                ("fault", "advanced again after", "others"),
                [
                    (
                        each["fault"],
                        "not measurable" if each["seconds"] is None else f"{each['seconds']} s",
                        f"{each['others_s']} s",
                    )
                    for each in figures["recoveries"]
                ],
            ),
            "<h2>Times</h2>",
            _table(
                ("", "p50", "p95", "p99", "max"),
                [
                    (what, *(f"{each.get(p, '-')} s" for p in ("p50", "p95", "p99", "max")))
                    for what, each in (
                        ("a command, until it was answered", figures["commands"]["latency_s"]),
                        ("a partition that stood still for 0.75 s or more", figures["stall_s"]),
                    )
                ],
            ),
            "<h2>Restarts</h2>",
            _table(
                ("process", "times"), [(n, str(c)) for n, c in sorted(outcome.restarts.items())]
            ),
        )
    )


def _invariants(outcome: "Outcome") -> str:
    if outcome.report is None:
        return ""
    rows = [
        (
            "holds" if each.holds else f"{each.violated:,} broken",
            each.sentence,
            ", ".join(f"{count:,} {what}" for what, count in each.looked_at.items()),
        )
        for each in outcome.report.checks
    ]
    return "<h2>Invariants</h2>" + _table(("", "what has to be true", "looked at"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}>{escape(each)}</{tag}>" for each in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", head)}</tr>{body}</table></div>'
