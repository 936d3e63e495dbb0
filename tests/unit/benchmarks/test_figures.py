"""Every figure is consistent: unique names, and goals about its own metrics and sides."""

from collections.abc import Iterator

import pytest

from benchmarks.figure import Figure, Goal, Kind
from benchmarks.figures import FIGURES


def goals(goal: Goal | None) -> Iterator[Goal]:
    while goal is not None:
        yield goal
        goal = goal.or_else


def test_names_and_headings_are_unique() -> None:
    assert len({each.name for each in FIGURES}) == len(FIGURES)
    assert len({each.title for each in FIGURES}) == len(FIGURES)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda each: each.name)
class TestEach:
    def test_has_sides_and_metrics_with_unique_names(self, figure: Figure) -> None:
        sides = [each.name for each in figure.sides]
        metrics = [each.name for each in figure.metrics]

        assert len(set(sides)) == len(sides)
        assert len(set(metrics)) == len(metrics)
        assert Kind.OURS in {each.kind for each in figure.sides}

    def test_has_goals_about_what_it_measures(self, figure: Figure) -> None:
        kinds = {each.name: each.kind for each in figure.sides}
        metrics = {each.name for each in figure.metrics}

        for goal in [each for first in figure.goals for each in goals(first)]:
            assert goal.metric in metrics
            assert goal.against_metric is None or goal.against_metric in metrics
            assert goal.against is None or goal.against in kinds
            assert goal.side is None or kinds[goal.side] is Kind.OURS
            assert (goal.at_least, goal.at_most) != (None, None)
