"""Goals are judged by medians of rounds; a miss within the spread is no real miss."""

import pytest

from benchmarks.figure import Goal, Values
from benchmarks.verdicts import Outcome, Rounds, Verdict, judge, spread

from .figures import FLOOR, OURS, PEER, figure

AGAINST_THE_FLOOR = Goal("throughput", at_least=0.5, against=FLOOR)


def throughputs(*values: float | None) -> list[Values | None]:
    return [None if each is None else {"throughput": each} for each in values]


def verdict(goal: Goal, rounds: Rounds, *, full: bool = True) -> Verdict:
    (found,) = judge(figure(goal), rounds, full=full)
    return found


class TestTheSpread:
    def test_is_half_of_the_difference_between_greatest_and_least(self) -> None:
        assert spread([3.0, 1.0, 2.0]) == 1.0

    @pytest.mark.parametrize("values", [[], [7.0]])
    def test_of_one_or_none_is_zero(self, values: list[float]) -> None:
        assert spread(values) == 0.0


class TestARatio:
    def test_is_of_the_two_values_of_one_round(self) -> None:
        found = verdict(
            AGAINST_THE_FLOOR,
            {OURS: throughputs(60, 300, 70), FLOOR: throughputs(100, 400, 100)},
        )

        # Of the medians it would be 0.7.
        assert found.per_round == (0.6, 0.75, 0.7)
        assert found.value == 0.7
        assert found.outcome is Outcome.MET

    def test_of_a_round_that_one_side_missed_is_left_out(self) -> None:
        found = verdict(
            AGAINST_THE_FLOOR,
            {OURS: throughputs(60, 90, None), FLOOR: throughputs(100, None, 100)},
        )

        assert found.per_round == (0.6,)

    def test_of_other_metrics_of_the_same_side(self) -> None:
        goal = Goal("p95", at_most=4, against_metric="throughput")

        found = verdict(goal, {OURS: [{"p95": 30.0, "throughput": 10.0}]})

        assert (found.per_round, found.outcome) == ((3.0,), Outcome.MET)

    def test_to_another_metric_of_another_side(self) -> None:
        goal = Goal("p95", at_most=4, against=FLOOR, against_metric="throughput")

        found = verdict(goal, {OURS: [{"p95": 50.0}], FLOOR: throughputs(10)})

        assert (found.per_round, found.outcome) == ((5.0,), Outcome.SHORT)

    def test_to_nothing_is_none_and_fails(self) -> None:
        found = verdict(AGAINST_THE_FLOOR, {OURS: throughputs(60), FLOOR: throughputs(0)})

        assert (found.value, found.outcome, found.fails) == (None, Outcome.NO_RATIO, True)

    def test_of_zero_is_zero(self) -> None:
        found = verdict(AGAINST_THE_FLOOR, {OURS: throughputs(0), FLOOR: throughputs(100)})

        assert (found.value, found.outcome) == (0.0, Outcome.SHORT)

    def test_of_a_metric_that_a_side_does_not_return_fails(self) -> None:
        found = verdict(AGAINST_THE_FLOOR, {OURS: throughputs(60), FLOOR: [{"p95": 1.0}]})

        assert (found.outcome, found.fails) == (Outcome.NO_RATIO, True)


class TestAGoalInItsOwnUnit:
    @pytest.mark.parametrize(
        ("goal", "outcome"),
        [
            (Goal("throughput", at_least=60), Outcome.MET),
            (Goal("throughput", at_least=61), Outcome.SHORT),
            (Goal("throughput", at_most=60), Outcome.MET),
            (Goal("throughput", at_most=59), Outcome.SHORT),
            (Goal("throughput", at_least=50, at_most=70), Outcome.MET),
            (Goal("throughput", at_least=70, at_most=80), Outcome.SHORT),
        ],
    )
    def test_holds_up_to_its_bound(self, goal: Goal, outcome: Outcome) -> None:
        # One round has no spread: whatever misses, misses by more.
        assert verdict(goal, {OURS: throughputs(60)}).outcome is outcome

    def test_may_be_zero(self) -> None:
        found = verdict(Goal("throughput", at_most=1), {OURS: throughputs(0, 0)})

        assert (found.value, found.outcome) == (0.0, Outcome.MET)

    def test_is_about_the_side_that_it_names(self) -> None:
        goal = Goal("throughput", at_least=10, side=FLOOR)

        found = verdict(goal, {OURS: throughputs(1), FLOOR: throughputs(20)})

        assert found.value == 20


class TestAMiss:
    @pytest.mark.parametrize(
        ("values", "outcome"),
        [
            ((96.0, 98.0, 102.0), Outcome.WITHIN),  # 2 short, ± 3
            ((97.0, 97.0, 103.0), Outcome.WITHIN),  # 3 short, ± 3
            ((95.0, 96.0, 98.0), Outcome.SHORT),  # 4 short, ± 1.5
        ],
    )
    def test_counts_beyond_the_spread(self, values: tuple[float, ...], outcome: Outcome) -> None:
        found = verdict(Goal("throughput", at_least=100), {OURS: throughputs(*values)})

        assert (found.outcome, found.fails) == (outcome, outcome is Outcome.SHORT)


class TestWhatWasNotInTheRun:
    @pytest.mark.parametrize("repeats", [[], [None, None]])
    def test_is_not_measured_and_fails_nothing(self, repeats: list[None]) -> None:
        goal = Goal("throughput", at_least=2, against=PEER)

        for found in (
            verdict(goal, {OURS: throughputs(60, 70)}),
            verdict(goal, {OURS: throughputs(60, 70), PEER: repeats}),
            verdict(goal, {OURS: repeats, PEER: throughputs(60, 70)}),
        ):
            assert (found.outcome, found.fails) == (Outcome.NOT_MEASURED, False)

    def test_is_a_goal_of_full_runs_in_a_quick_one(self) -> None:
        goal = Goal("throughput", at_least=60, only_in_full=True)

        assert verdict(goal, {OURS: throughputs(1)}, full=False).outcome is Outcome.NOT_MEASURED
        assert verdict(goal, {OURS: throughputs(1)}).outcome is Outcome.SHORT


class TestTwoWaysToMeetIt:
    OF_THE_FLOOR = AGAINST_THE_FLOOR
    EITHER = Goal("throughput", at_least=5_000, or_else=OF_THE_FLOOR)

    @pytest.mark.parametrize(
        ("ours", "floor", "outcome", "value"),
        [
            (6_000, 20_000, Outcome.MET, 6_000),
            (4_000, 5_000, Outcome.MET, 0.8),
            (6_000, 7_000, Outcome.MET, 6_000),
            (4_000, 20_000, Outcome.SHORT, 4_000),
            (4_000, None, Outcome.SHORT, 4_000),
            (6_000, None, Outcome.MET, 6_000),
        ],
    )
    def test_one_is_enough(
        self, ours: float, floor: float | None, outcome: Outcome, value: float
    ) -> None:
        found = verdict(self.EITHER, {OURS: throughputs(ours), FLOOR: throughputs(floor)})

        assert (found.outcome, found.value) == (outcome, value)
