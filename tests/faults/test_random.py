"""Faults at random under steady load for some minutes; then nothing is lost."""

import asyncio
import os
import secrets
from pathlib import Path

import pytest

from tests.faults.harness import running_system
from tests.faults.observing import Stalls
from tests.faults.random_run import explain, run, write
from tests.faults.schedule import Kind, schedule

_MINUTES = float(os.environ.get("FAULTS_MINUTES", "3"))


@pytest.mark.timeout(_MINUTES * 60 + 400)
def test_whatever_dies_whenever_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("FAULTS_SEED", secrets.randbelow(1_000_000)))

    # Past what pytest captures: who waits for minutes wants to see that it goes on.
    with running_system(tmp_path, seed=seed) as system, capsys.disabled():
        outcome = asyncio.run(run(system, seed, _MINUTES, say=print))

    write(outcome, tmp_path)
    assert not outcome.broken, explain(outcome)


class TestTheSchedule:
    def test_it_is_made_from_the_seed_alone(self) -> None:
        assert schedule(7, 5) == schedule(7, 5)
        assert schedule(7, 5) != schedule(8, 5)

    @pytest.mark.parametrize("seed", range(20))
    def test_ten_processes_are_killed_a_minute(self, seed: int) -> None:
        kills = [each for each in schedule(seed, 30) if each.kind in (Kind.KILL, Kind.DIE)]

        assert len(kills) >= 300

    def test_a_longer_run_begins_as_a_shorter_one(self) -> None:
        shorter = schedule(7, 3)

        assert schedule(7, 6)[: len(shorter)] == shorter

    @pytest.mark.parametrize("seed", range(20))
    def test_one_that_is_alone_is_so(self, seed: int) -> None:
        faults = schedule(seed, 10)

        for each in faults:
            if each.alone:
                near = [o for o in faults if abs(o.at_s + o.for_s - each.at_s) < 9]
                assert near == [each]

    @pytest.mark.parametrize("seed", range(20))
    def test_who_joins_leaves_again(self, seed: int) -> None:
        there: set[str] = set()
        for each in schedule(seed, 30):
            if each.kind is Kind.JOIN:
                assert each.who not in there
                there.add(each.who)
            elif each.kind in (Kind.LEAVE, Kind.DIE):
                there.remove(each.who)

        assert not there


class TestStalls:
    """A partition stands still while there is something to handle and its progress stays."""

    HERE = ("accounts", "users.user", 0)

    def seen(self, *looks: tuple[float, int, int]) -> list[tuple[float, float]]:
        """Return from when to when it stood still; a look is a time, the progress and the end."""
        stalls = Stalls()
        for at_s, next_offset, end in looks:
            stalls.see(at_s, {self.HERE: next_offset}, {self.HERE[1:]: end})
        return [(each.begin_s, each.end_s) for each in stalls.ended]

    def test_it_begins_with_the_first_that_waits_and_ends_when_that_is_handled(self) -> None:
        assert self.seen((0, 5, 5), (1, 5, 6), (2, 5, 9), (3, 6, 9)) == [(1, 3)]

    def test_where_nothing_is_to_be_done_nothing_stands_still(self) -> None:
        assert self.seen((0, 5, 5), (9, 5, 5), (18, 6, 6)) == []

    def test_what_moves_at_each_look_is_behind_and_flows(self) -> None:
        assert self.seen((0, 1, 9), (0.5, 2, 9), (1, 3, 9), (1.5, 4, 9)) == []

    def test_one_that_stops_twice_stood_still_twice(self) -> None:
        assert self.seen((0, 1, 9), (2, 2, 9), (5, 9, 9)) == [(0, 2), (2, 5)]

    def test_what_nobody_could_ask_goes_on_as_it_was(self) -> None:
        stalls = Stalls()
        stalls.see(0, {self.HERE: 1}, {self.HERE[1:]: 2})
        stalls.see(1, {}, {})
        stalls.see(2, {self.HERE: 1}, {})
        stalls.see(3, {self.HERE: 2}, {self.HERE[1:]: 2})

        assert [each.seconds for each in stalls.ended] == [3]
