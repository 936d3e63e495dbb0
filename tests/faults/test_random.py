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
def test_nothing_is_lost_whichever_processes_die(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("FAULTS_SEED", secrets.randbelow(1_000_000)))

    # Printed although pytest captures output: a run of minutes shows its progress.
    with running_system(tmp_path, seed=seed) as system, capsys.disabled():
        outcome = asyncio.run(run(system, seed, _MINUTES, print_line=print))

    write(outcome, tmp_path)
    assert not outcome.broken, explain(outcome)


class TestTheSchedule:
    def test_it_depends_on_the_seed_only(self) -> None:
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
    def test_a_single_fault_has_no_other_near_it(self, seed: int) -> None:
        faults = schedule(seed, 10)

        for each in faults:
            if each.alone:
                near = [o for o in faults if abs(o.at_s + o.for_s - each.at_s) < 9]
                assert near == [each]

    @pytest.mark.parametrize("seed", range(20))
    def test_an_added_worker_is_removed_again(self, seed: int) -> None:
        added: set[str] = set()
        for each in schedule(seed, 30):
            if each.kind is Kind.JOIN:
                assert each.who not in added
                added.add(each.who)
            elif each.kind in (Kind.LEAVE, Kind.DIE):
                added.remove(each.who)

        assert not added


class TestStalls:
    """A partition stalls while it has records to handle and its progress does not change."""

    PARTITION = ("accounts", "users.user", 0)

    def found(self, *samples: tuple[float, int, int]) -> list[tuple[float, float]]:
        """Return begin and end of each stall; a sample is a time, the progress and the end."""
        stalls = Stalls()
        for at_s, next_offset, end in samples:
            stalls.add(at_s, {self.PARTITION: next_offset}, {self.PARTITION[1:]: end})
        return [(each.begin_s, each.end_s) for each in stalls.ended]

    def test_a_stall_begins_with_the_first_record_that_waits_and_ends_when_that_is_handled(
        self,
    ) -> None:
        assert self.found((0, 5, 5), (1, 5, 6), (2, 5, 9), (3, 6, 9)) == [(1, 3)]

    def test_without_records_to_handle_there_is_no_stall(self) -> None:
        assert self.found((0, 5, 5), (9, 5, 5), (18, 6, 6)) == []

    def test_progress_at_each_sample_is_no_stall(self) -> None:
        assert self.found((0, 1, 9), (0.5, 2, 9), (1, 3, 9), (1.5, 4, 9)) == []

    def test_a_partition_that_stops_twice_has_two_stalls(self) -> None:
        assert self.found((0, 1, 9), (2, 2, 9), (5, 9, 9)) == [(0, 2), (2, 5)]

    def test_a_sample_without_answers_does_not_end_a_stall(self) -> None:
        stalls = Stalls()
        stalls.add(0, {self.PARTITION: 1}, {self.PARTITION[1:]: 2})
        stalls.add(1, {}, {})
        stalls.add(2, {self.PARTITION: 1}, {})
        stalls.add(3, {self.PARTITION: 2}, {self.PARTITION[1:]: 2})

        assert [each.seconds for each in stalls.ended] == [3]
