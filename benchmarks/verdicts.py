"""Whether a goal is met, by the median over the rounds and its spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

from benchmarks.figure import Figure, Goal, Kind, Values

Rounds = Mapping[str, Sequence[Values | None]]
"""The values of each side, by its name: one entry per round, None where it did not run."""


class Outcome(StrEnum):
    """Whether a goal was met."""

    MET = "met"
    WITHIN = "short within its spread"
    SHORT = "short"
    #: Both sides ran, but no round has a value of both.
    NO_RATIO = "no ratio"
    #: One of the two sides was not in this run.
    NOT_MEASURED = "not measured"


_BEST_FIRST: Final = tuple(Outcome)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what was measured for it."""

    goal: Goal
    """Of a goal with an alternative, the one that came out better."""
    outcome: Outcome
    per_round: Sequence[float] = ()
    """The ratio of each round, or the value itself where the goal is no ratio."""

    @property
    def value(self) -> float | None:
        return median(self.per_round) if self.per_round else None

    @property
    def spread(self) -> float:
        return spread(self.per_round)

    @property
    def fails(self) -> bool:
        return self.outcome in (Outcome.SHORT, Outcome.NO_RATIO)


def spread(values: Sequence[float]) -> float:
    """Return half of the difference between the greatest and the least; 0 for one or none."""
    return (max(values) - min(values)) / 2 if values else 0.0


def side_of(goal: Goal, figure: Figure) -> str:
    """Return the name of the side that a goal is about."""
    return goal.side or next(each.name for each in figure.sides if each.kind is Kind.OURS)


def judge(figure: Figure, rounds: Rounds, *, full: bool) -> list[Verdict]:
    """Return the verdict on each goal of a figure."""
    return [_judge(goal, figure, rounds, full=full) for goal in figure.goals]


def _judge(goal: Goal, figure: Figure, rounds: Rounds, *, full: bool) -> Verdict:
    verdict = _judge_one(goal, figure, rounds, full=full)
    if goal.or_else is None:
        return verdict
    other = _judge(goal.or_else, figure, rounds, full=full)
    return min(verdict, other, key=lambda each: _BEST_FIRST.index(each.outcome))


def _judge_one(goal: Goal, figure: Figure, rounds: Rounds, *, full: bool) -> Verdict:
    ours = rounds.get(side_of(goal, figure), ())
    others = ours if goal.against is None else rounds.get(goal.against, ())
    if (goal.only_in_full and not full) or not any(ours) or not any(others):
        return Verdict(goal, Outcome.NOT_MEASURED)
    # A ratio takes both numbers of one round; a round that one side missed has none.
    found = [
        value
        for mine, theirs in zip(ours, others, strict=False)
        if mine and theirs and (value := _of_round(goal, mine, theirs)) is not None
    ]
    if not found:
        return Verdict(goal, Outcome.NO_RATIO)
    short_by = _short_by(goal, median(found))
    if short_by <= 0:
        outcome = Outcome.MET
    else:
        outcome = Outcome.SHORT if short_by > spread(found) else Outcome.WITHIN
    return Verdict(goal, outcome, tuple(found))


def _of_round(goal: Goal, mine: Values, theirs: Values) -> float | None:
    value = mine.get(goal.metric)
    if value is None or (goal.against is None and goal.against_metric is None):
        return value
    base = theirs.get(goal.against_metric or goal.metric)
    return value / base if base else None


def _short_by(goal: Goal, value: float) -> float:
    """Return how far a value is on the wrong side of the bound; 0 or less when it is not."""
    below = [] if goal.at_least is None else [goal.at_least - value]
    above = [] if goal.at_most is None else [value - goal.at_most]
    return max(below + above)
