"""What a subscriber does with one version of a fact, by what it has seen of the others."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.consuming.inbox import Gaps, Seen, Verdict
from chassis.consuming.versions import Choice, choose, others_of
from contracts.envelope import Envelope

FACT = {1: 7, 2: 8, 3: 9}


def event(sequence: int, versions: Mapping[int, int] | None = None) -> Envelope:
    """Return an event of one of these versions, as far as the choice depends on it."""
    attributes: dict[str, Any] = {"sequence": sequence, "versions": versions}
    return Envelope.model_construct(**attributes)


def chosen(
    version: int,
    taken: Collection[int],
    seen: Seen,
    *,
    fact: Mapping[int, int] = FACT,
) -> Choice:
    """Choose what to do with one version of a fact."""
    own = version if version in taken else None
    return choose(event(fact[version], fact), own, taken, seen)


class TestAFactInOneVersion:
    def test_that_is_taken_is_handled(self) -> None:
        assert choose(event(7), 1, {1}, Seen(7)) is Choice.HANDLE

    def test_that_is_not_taken_is_passed_over(self) -> None:
        assert choose(event(7), None, {1}, Seen(7)) is Choice.NO_VERSION


class TestAFactInSeveralVersions:
    @pytest.mark.parametrize("taken", [{1}, {2}, {3}, {1, 2}, {2, 3}, {1, 2, 3}])
    def test_is_handled_once_in_the_newest_that_is_taken(self, taken: set[int]) -> None:
        seen = Seen(6)
        handled = []

        for version, sequence in FACT.items():
            seen.last = sequence
            choice = chosen(version, taken, seen)
            if choice is Choice.HANDLE:
                handled.append(version)
                seen.handle(sequence, others_of(event(sequence, FACT)).values())
            elif choice is Choice.HANDLED:
                seen.handle(sequence, others_of(event(sequence, FACT)).values())
            else:
                assert choice is Choice.LATER

        assert handled == [max(taken)]
        assert seen.handled == set()

    def test_that_was_handled_in_another_is_not_handled_again(self) -> None:
        seen = Seen(8, handled={7})

        assert chosen(2, {2}, seen) is Choice.HANDLED
        assert chosen(2, {1}, seen) is Choice.HANDLED

    def test_another_fact_that_was_handled_is_none_of_it(self) -> None:
        assert chosen(2, {2}, Seen(8, handled={5, 12})) is Choice.HANDLE

    def test_is_published_in_none_that_is_taken(self) -> None:
        assert chosen(1, {4}, Seen(7)) is Choice.NO_VERSION

    @pytest.mark.parametrize(
        "seen",
        [Seen(7), Seen(9, gaps=Gaps([(8, 8)])), Seen(9, parked_versions={8})],
        ids=["not-yet-delivered", "missing", "parked"],
    )
    def test_is_left_to_the_version_that_is_to_come(self, seen: Seen) -> None:
        assert chosen(1, {2}, seen) is Choice.LATER
        assert chosen(1, {1, 2}, seen) is Choice.LATER

    def test_of_which_the_version_to_take_was_passed_over_is_missed(self) -> None:
        assert chosen(2, {1}, Seen(8)) is Choice.MISSED

    def test_of_which_the_preferred_version_was_passed_over_is_handled_in_a_taken_one(self) -> None:
        assert chosen(1, {1, 2}, Seen(8)) is Choice.HANDLE

    def test_that_began_before_a_late_start_is_not_missed(self) -> None:
        seen = Seen()
        assert seen.judge(8, UUID(int=8), from_beginning=False) is Verdict.NEXT

        assert chosen(2, {1}, seen) is Choice.HANDLED
        assert chosen(2, {2}, seen) is Choice.HANDLE


class TestWhatIsKeptOfAHandledFact:
    def test_is_its_sequence_until_its_last_version_has_come(self) -> None:
        seen = Seen(7)

        seen.handle(7, [8, 9])
        assert seen.handled == {7}
        seen.last = 8
        seen.handle(8, [7, 9])
        assert seen.handled == {8}
        seen.last = 9
        seen.handle(9, [7, 8])
        assert seen.handled == set()

    def test_is_as_much_as_gaps_and_parked_events_leave_to_come(self) -> None:
        seen = Seen(20, gaps=Gaps([(2, 2)]), parked_versions=[8])

        seen.handle(1, [2])
        seen.handle(7, [8])
        seen.handle(11, [12])

        assert seen.handled == {1, 7}


class TestWhateverTheOrder:
    @given(
        st.lists(st.integers(1, 3), min_size=1, max_size=5),
        st.lists(st.sampled_from([{1}, {1, 2}, {2}, {2, 3}, {3}]), min_size=1, max_size=20),
        st.randoms(use_true_random=False),
    )
    def test_and_however_the_subscriber_is_changed_no_fact_is_handled_twice_or_missed_in_silence(
        self, numbers: list[int], readers: list[set[int]], random: object
    ) -> None:
        facts: list[Mapping[int, int]] = []
        sequence = 0
        for number in numbers:
            facts.append({version: sequence + version for version in range(1, number + 1)})
            sequence += number
        order = [(fact, version) for fact in facts for version in fact]
        random.shuffle(order)  # type: ignore[attr-defined]
        seen = Seen()
        handled = [0] * len(facts)
        reported = [0] * len(facts)
        passed = [0] * len(facts)

        for position, (fact, version) in enumerate(order):
            taken = readers[position * len(readers) // len(order)]
            number = facts.index(fact)
            verdict = seen.judge(fact[version], UUID(int=fact[version]), from_beginning=True)
            assert verdict in (Verdict.NEXT, Verdict.AFTER_GAP, Verdict.LATE)
            versions = fact if len(fact) > 1 else None
            own = version if version in taken else None
            choice = choose(event(fact[version], versions), own, taken, seen)
            handled[number] += choice is Choice.HANDLE
            reported[number] += choice is Choice.MISSED
            passed[number] += choice is Choice.NO_VERSION
            if choice in (Choice.HANDLE, Choice.HANDLED):
                seen.handle(
                    fact[version], [each for each in fact.values() if each != fact[version]]
                )

        assert max(handled) <= 1
        assert all(
            once or seen_missed or none
            for once, seen_missed, none in zip(handled, reported, passed, strict=True)
        )
        assert seen.handled == set()
