"""Faults at random under steady load for some minutes; then nothing is lost."""

import argparse
import asyncio
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.harness import running_system
from tests.faults.observing import Sample, Stall, Stalls
from tests.faults.random_run import (
    InjectedFault,
    Outcome,
    _more_than_none,
    explain,
    run,
    write,
)
from tests.faults.schedule import Fault, Kind, schedule

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


class TestTheVerdicts:
    """What is lost and what was slow are said apart, with the machine's load."""

    ALONE = Fault(10.0, Kind.KILL, "accounts", alone=True)

    def outcome(self, *, stood_s: float = 0.0, wrong: Sequence[str] = ()) -> Outcome:
        samples = [
            Sample(at / 4, {}, {"accounts": 0}, {"accounts": "running"}, {}, at, load=at / 10)
            for at in range(100)
        ]
        stalls = [Stall("accounts", "users.user", 0, 10.5, 10.0 + stood_s)] if stood_s else []
        return Outcome(
            *(7, 1.0, 15.0, "logs"),
            injected=[InjectedFault(self.ALONE, 10.0, 10.0)],
            samples=samples,
            stalls=stalls,
            wrong=list(wrong),
        )

    def test_all_is_well(self) -> None:
        lost, slow, load = self.outcome(stood_s=4).verdicts

        assert lost == "nothing is lost: every invariant holds"
        assert slow == "all 1 recoveries measured took at most 10 s"
        assert load.startswith("the machine's load: 5.0 (median), 9.9 (highest), on ")

    def test_a_slow_recovery_is_no_loss(self) -> None:
        outcome = self.outcome(stood_s=12)

        assert outcome.verdicts[:2] == [
            "nothing is lost: every invariant holds",
            "1 of 1 recoveries took longer than 10 s",
        ]
        assert outcome.broken == outcome.slow

    def test_a_loss_is_no_slow_recovery(self) -> None:
        outcome = self.outcome(wrong=["ada is gone"])

        assert outcome.verdicts[0] == "1 broken: something is lost or wrong"
        assert (outcome.lost, outcome.slow) == (["ada is gone"], [])

    @pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
    def test_a_run_of_no_time_is_refused(self, minutes: str) -> None:
        with pytest.raises(argparse.ArgumentTypeError):
            _more_than_none(minutes)


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
