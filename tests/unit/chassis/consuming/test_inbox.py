"""What an event is to a subscriber, by what it has seen of the subject."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.consuming.inbox import Gaps, Seen, Verdict


def id_(number: int) -> UUID:
    return UUID(int=number)


def judge(seen: Seen, *sequences: int, from_beginning: bool = True) -> list[Verdict]:
    """Judge events whose ids grow with their sequences."""
    return [seen.judge(each, id_(each), from_beginning=from_beginning) for each in sequences]


class TestJudging:
    def test_one_after_the_other_is_next(self) -> None:
        assert judge(Seen(), 1, 2, 3) == [Verdict.NEXT] * 3

    def test_a_number_seen_before_is_a_repeat(self) -> None:
        assert judge(Seen(), 1, 2, 2, 1)[2:] == [Verdict.REPEAT, Verdict.REPEAT]

    def test_a_jump_is_after_a_gap_which_is_remembered(self) -> None:
        seen = Seen()

        assert judge(seen, 1, 4)[1] is Verdict.AFTER_GAP
        assert list(seen.gaps) == [(2, 3)]

    def test_a_first_event_that_is_not_number_one_is_after_a_gap(self) -> None:
        seen = Seen()

        assert judge(seen, 3) == [Verdict.AFTER_GAP]
        assert list(seen.gaps) == [(1, 2)]

    def test_to_one_that_starts_now_any_first_number_is_next(self) -> None:
        seen = Seen()

        assert judge(seen, 3, 4, 2, from_beginning=False) == [
            Verdict.NEXT,
            Verdict.NEXT,
            Verdict.REPEAT,
        ]
        assert list(seen.gaps) == []

    def test_a_missing_number_is_late_once_and_then_a_repeat(self) -> None:
        seen = Seen()
        judge(seen, 1, 4)

        assert judge(seen, 2, 2) == [Verdict.LATE, Verdict.REPEAT]
        assert list(seen.gaps) == [(3, 3)]

    def test_an_old_number_with_a_newer_id_is_another_history(self) -> None:
        seen = Seen()
        judge(seen, 1, 2, 3)

        assert seen.judge(2, id_(9), from_beginning=True) is Verdict.FORKED
        assert seen.judge(2, id_(9), from_beginning=True) is Verdict.REPEAT

    @pytest.mark.parametrize("sequence", [5, 7, 3])
    def test_behind_a_parked_one_waits_what_would_be_handled(self, sequence: int) -> None:
        seen = Seen(4, id_(4), Gaps([(3, 3)]), parked=True)

        assert judge(seen, sequence) == [Verdict.BEHIND]

    def test_behind_a_parked_one_a_repeat_stays_a_repeat(self) -> None:
        seen = Seen(4, id_(4), parked=True)

        assert judge(seen, 4) == [Verdict.REPEAT]
        assert seen.judge(4, id_(9), from_beginning=True) is Verdict.FORKED

    def test_a_jump_of_billions_is_one_range_and_a_late_event_within_it_is_handled(self) -> None:
        seen = Seen()

        assert judge(seen, 9_999_999_999, 5) == [Verdict.AFTER_GAP, Verdict.LATE]
        assert list(seen.gaps) == [(1, 4), (6, 9_999_999_998)]


class TestGaps:
    @pytest.mark.parametrize(
        ("sequence", "left"),
        [(3, [(4, 6)]), (6, [(3, 5)]), (4, [(3, 3), (5, 6)])],
        ids=["first", "last", "within"],
    )
    def test_a_sequence_is_taken_out_of_its_range(
        self, sequence: int, left: list[tuple[int, int]]
    ) -> None:
        gaps = Gaps([(3, 6)])

        assert gaps.fill(sequence)
        assert list(gaps) == left

    @pytest.mark.parametrize("sequence", [1, 3, 5, 7, 11])
    def test_a_sequence_that_is_not_missing_is_in_no_range(self, sequence: int) -> None:
        gaps = Gaps([(8, 10), (2, 2), (4, 4), (6, 6)])

        assert not gaps.fill(sequence)
        assert list(gaps) == [(2, 2), (4, 4), (6, 6), (8, 10)]

    def test_the_only_sequence_of_a_range_closes_it(self) -> None:
        gaps = Gaps([(2, 2)])

        assert gaps.fill(2)
        assert list(gaps) == []


class TestWhateverTheOrder:
    @given(st.permutations(range(1, 9)), st.lists(st.integers(1, 8), max_size=8))
    def test_each_number_is_handled_once_and_nothing_stays_missing(
        self, order: list[int], repeats: list[int]
    ) -> None:
        seen = Seen()

        verdicts = dict.fromkeys(range(1, 9), 0)
        for number in [*order, *repeats]:
            if seen.judge(number, id_(number), from_beginning=True) is not Verdict.REPEAT:
                verdicts[number] += 1

        assert set(verdicts.values()) == {1}
        assert list(seen.gaps) == []
        assert seen.last == 8

    @given(st.lists(st.integers(1, 30), min_size=1))
    def test_missing_is_what_was_not_seen_up_to_the_last(self, numbers: list[int]) -> None:
        seen = Seen()

        judge(seen, *numbers)

        missing = {each for first, last in seen.gaps for each in range(first, last + 1)}
        assert missing == set(range(1, max(numbers))) - set(numbers)
