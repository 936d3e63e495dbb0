"""A pause doubles up to its bound."""

import pytest

from chassis.backoff import Backoff


class TestBackoff:
    def test_doubles_with_each_failure_up_to_the_longest(self) -> None:
        backoff = Backoff(first_s=0.5, longest_s=3.0, jitter=False)

        assert [backoff.pause_s(failures) for failures in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]

    @pytest.mark.parametrize("failures", [100, 100_000])
    def test_is_bounded_after_any_number_of_failures(self, failures: int) -> None:
        assert Backoff(first_s=0.01, longest_s=5.0, jitter=False).pause_s(failures) == 5.0

    def test_with_jitter_is_a_random_part_of_the_pause(self) -> None:
        pauses = {Backoff(first_s=1.0, longest_s=8.0).pause_s(2) for _ in range(100)}

        assert len(pauses) > 50
        assert all(0 <= each <= 4 for each in pauses)
