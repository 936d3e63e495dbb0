"""How many aggregates may park with one error, and when they count."""

from contextlib import suppress

import pytest

from chassis.consuming.dead_letter_limit import DeadLetterLimit, LimitExceeded
from chassis.consuming.dead_letters import ParkedSubject


def parked(*subjects: object, code: str = "x", offset: int = 0) -> list[ParkedSubject]:
    return [ParkedSubject(str(each), code, 0, offset) for each in subjects]


def park(limit: DeadLetterLimit, subjects: list[ParkedSubject]) -> None:
    """Park them in a transaction that is committed."""
    with limit.reservation() as reserve:
        reserve(subjects)


class TestTheLimit:
    def test_is_many_subjects_with_one_error(self) -> None:
        limit = DeadLetterLimit("t")
        park(limit, parked(*range(50)))

        with pytest.raises(
            LimitExceeded, match=r"51 aggregates of t would park with x \(50 of them are parked: "
        ):
            park(limit, parked("one more"))

    def test_names_those_that_were_parked_before_it_was_reached(self) -> None:
        limit = DeadLetterLimit("t", most=2)
        park(limit, parked("ada", "bob"))

        with pytest.raises(LimitExceeded, match=r"are parked: ada, bob; `parked release-all`"):
            park(limit, parked("one more"))

    def test_names_ten_of_them_at_most(self) -> None:
        limit = DeadLetterLimit("t", most=11)
        park(limit, parked(*range(11)))

        with pytest.raises(LimitExceeded, match=r"are parked: 0, 1, [^;]*, 9, …; "):
            park(limit, parked("one more"))

    def test_is_not_many_errors_of_one_subject(self) -> None:
        park(DeadLetterLimit("t"), parked("ada") * 500)

    def test_is_not_many_errors_each_another(self) -> None:
        park(DeadLetterLimit("t"), [each for n in range(500) for each in parked(n, code=f"{n}")])

    def test_is_a_setting(self) -> None:
        with pytest.raises(LimitExceeded, match="3 aggregates"):
            park(DeadLetterLimit("t", most=2), parked(1, 2, 3))

    def test_counts_within_its_window_only(self) -> None:
        limit = DeadLetterLimit("t", most=2, window_s=-1.0)
        park(limit, parked(1, 2))

        park(limit, parked(3, 4))

    def test_counts_none_of_those_that_would_exceed_it(self) -> None:
        limit = DeadLetterLimit("t", most=3)
        park(limit, parked(1, 2))

        with pytest.raises(LimitExceeded):
            park(limit, parked(3, 4))

        park(limit, parked(5))

    def test_counts_nothing_that_was_rolled_back(self) -> None:
        limit = DeadLetterLimit("t", most=3)
        park(limit, parked(1))
        with suppress(ZeroDivisionError), limit.reservation() as reserve:
            reserve(parked(1, 2, 3))
            raise ZeroDivisionError

        with pytest.raises(LimitExceeded, match=r"4 aggregates of t .* \(1 of them are parked: 1;"):
            park(limit, parked(4, 5, 6))
