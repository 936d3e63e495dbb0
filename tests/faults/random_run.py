"""``python -m tests.faults.random_run``: random faults under steady load; then the invariants."""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from local_cluster.directories import make_cluster_directory
from tests.faults.harness import System, running_system
from tests.faults.observing import EVERY_S, Observer, Sample, Stall
from tests.faults.report import page
from tests.faults.schedule import Fault, Kind, schedule
from verification.addresses import CannotVerify
from verification.report import Report

PER_SECOND: Final = 15.0
# Also of a worker that is started again: amid a run's load and other faults nobody can tell a start
# that is slow from a machine that is. `test_stalls` holds it to its 5 s with nothing else going on.
FLOWS_AGAIN_WITHIN_S: Final = 10.0

_CALM_BEFORE_S: Final = 3.0
# Of the looks that there would be on a machine with nothing else to do.
_OFTEN_ENOUGH: Final = 0.5
_SAY_EVERY_S: Final = 5.0
_RUNS_WITHIN_S: Final = 3.0
_QUIET_WITHIN_S: Final = 180.0
# One that comes to an end by itself ends by a signal of its own; see `add_worker`.
_LAST_SIGNALS: Final = {Kind.LEAVE: signal.SIGTERM, Kind.DIE: signal.SIGKILL}


@dataclass(frozen=True, slots=True)
class Done:
    """A fault that was made: when it really was, and for how long; missed if nobody was there."""

    fault: Fault
    at_s: float
    until_s: float
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long a worker's partitions stood still after it died, with nothing else wrong."""

    fault: Fault
    seconds: float | None
    """None: nobody can tell, since not all was well before, or the machine was too busy."""
    others_s: float
    """The longest that a partition of another service stood still meanwhile."""

    @property
    def in_time(self) -> bool:
        return self.seconds is None or self.seconds <= FLOWS_AGAIN_WITHIN_S


@dataclass
class Outcome:
    """What a run was, and how it ended."""

    seed: int
    minutes: float
    per_second: float
    logs: str
    done: list[Done] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    answered: int = 0
    cut_off: int = 0
    repeated: int = 0
    latencies_s: list[float] = field(default_factory=list)
    quiet_after_s: float | None = None
    report: Report | None = None
    wrong: list[str] = field(default_factory=list)
    never_quiet: str | None = None

    @property
    def counts(self) -> Counter[str]:
        """How many faults of each kind were made."""
        return Counter(str(each.fault.kind) for each in self.done if not each.missed)

    @property
    def kills(self) -> int:
        """How many processes were killed with SIGKILL."""
        return self.counts[Kind.KILL] + self.counts[Kind.DIE]

    @property
    def restarts(self) -> dict[str, int]:
        return dict(self.samples[-1].restarts) if self.samples else {}

    @property
    def recoveries(self) -> list[Recovery]:
        return [self._recovery(each) for each in self.done if each.fault.alone and not each.missed]

    @property
    def broken(self) -> list[str]:
        """All that is not as it has to be, in words."""
        found = [self.never_quiet] if self.never_quiet else []
        if self.report is not None and not self.report.holds:
            found += self.report.broken().splitlines()
        found += self.wrong
        found += [
            f"stalls: {each.seconds:.1f} s after {each.fault}: {FLOWS_AGAIN_WITHIN_S:g} s at most"
            for each in self.recoveries
            if not each.in_time
        ]
        return found

    def _recovery(self, done: Done) -> Recovery:
        until = done.at_s + FLOWS_AGAIN_WITHIN_S
        during = [each for each in self.stalls if done.at_s <= each.end_s and each.begin_s <= until]
        service = done.fault.who.partition("-")[0]
        stood = max((s.end_s - done.at_s for s in during if s.service == service), default=0.0)
        return Recovery(
            done.fault,
            stood if self._is_told(done.at_s, until, service) else None,
            max((s.seconds for s in during if s.service != service), default=0.0),
        )

    def _is_told(self, at_s: float, until: float, service: str) -> bool:
        """Whether all was well before, so that a stall is this fault's, and was looked at often."""
        before = [each for each in self.samples if at_s - _CALM_BEFORE_S <= each.at_s <= at_s]
        during = [each for each in self.samples if at_s <= each.at_s <= until]
        stood = any(
            each.service == service and each.begin_s < at_s < each.end_s for each in self.stalls
        )
        often = len(before + during) > _OFTEN_ENOUGH * (until - at_s + _CALM_BEFORE_S) / EVERY_S
        return (
            often
            and not stood
            and before[0].answered < before[-1].answered
            and during[0].answered < during[-1].answered
            and all(service in each.lags for each in before)
            and all(set(each.states.values()) <= {"running", "stopped"} for each in before)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, for programs."""
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "per_second": self.per_second,
            "holds": not self.broken,
            "broken": self.broken,
            "commands": {
                "answered": self.answered,
                "cut_off": self.cut_off,
                "repeated": self.repeated,
                "latency_s": quantiles(self.latencies_s),
            },
            "faults": dict(self.counts),
            "missed": sum(each.missed for each in self.done),
            "restarts": self.restarts,
            "quiet_after_s": self.quiet_after_s,
            "stall_s": quantiles([each.seconds for each in self.stalls]),
            "recoveries": [
                {
                    "fault": str(each.fault).strip(),
                    "seconds": None if each.seconds is None else round(each.seconds, 2),
                    "others_s": round(each.others_s, 2),
                }
                for each in self.recoveries
            ],
            "invariants": None if self.report is None else self.report.as_dict(),
            "schedule": [
                asdict(each.fault) | {"made_at_s": round(each.at_s, 2), "missed": each.missed}
                for each in self.done
            ],
        }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th and the 99th percentile, and the greatest; empty for none."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
        for name, share in at.items()
    }


class _Run:
    """Makes the faults of one schedule, each at its time, whatever became of those before."""

    def __init__(self, system: System, outcome: Outcome, observer: Observer) -> None:
        self._cluster = system.cluster
        self._outcome = outcome
        self._observer = observer
        self._frozen: dict[str, int] = {}

    async def make(self, faults: Sequence[Fault], seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, fault.at_s - self._observer.now_s))
                group.create_task(self._one(fault, _last_signal(fault, faults)))
            await asyncio.sleep(max(0.0, seconds - self._observer.now_s))

    async def _one(self, fault: Fault, last_signal: int) -> None:
        at_s = self._observer.now_s
        match fault.kind:
            case Kind.KILL | Kind.TERM:
                made = await self._send(fault.who, _signal(fault))
            case Kind.FREEZE:
                made = await self._freeze(fault)
            case Kind.JOIN:
                service, _, number = fault.who.partition("-")
                await asyncio.to_thread(
                    self._cluster.add_worker, service, int(number), stop_signal=last_signal
                )
                made = True
            case _:
                await asyncio.to_thread(self._cluster.remove_worker, fault.who)
                made = True
        self._outcome.done.append(Done(fault, at_s, self._observer.now_s, missed=not made))

    async def _send(self, who: str, number: int) -> bool:
        """Send a signal, once somebody is there to get it; false when nobody comes."""
        deadline = time.monotonic() + _RUNS_WITHIN_S
        while not (pid := await self._pid_of(who)):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    async def _freeze(self, fault: Fault) -> bool:
        pid = await self._pid_of(fault.who)
        if not pid:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.for_s)
            finally:
                # It may have been killed meanwhile, and its number is nobody's then.
                if await self._pid_of(fault.who) == pid:
                    os.kill(pid, signal.SIGCONT)
        return True

    async def _pid_of(self, who: str) -> int:
        found = (await asyncio.to_thread(self._cluster.processes)).get(who)
        return found.pid if found else 0


def _signal(fault: Fault) -> int:
    """Return what kills, or asks to end in good order."""
    if fault.kind is Kind.KILL:
        return signal.SIGKILL
    # On SIGTERM PostgreSQL waits until its clients have gone, and lets nobody in: theirs never go.
    return signal.SIGINT if fault.who == "postgres" else signal.SIGTERM


def _last_signal(joining: Fault, faults: Sequence[Fault]) -> int:
    """Return how a guest is to end: as the next fault about it says."""
    return next(
        (
            _LAST_SIGNALS[each.kind]
            for each in faults
            if each.who == joining.who and each.kind in _LAST_SIGNALS and each > joining
        ),
        signal.SIGTERM,
    )


Say = Callable[[str], None]


async def run(
    system: System, seed: int, minutes: float, *, per_second: float = PER_SECOND, say: Say
) -> Outcome:
    """Make the faults of a seed under load, wait for quiet, and check every invariant."""
    workload = system.workload
    outcome = Outcome(seed, minutes, per_second, str(system.logs))
    observer = Observer(system.cluster, workload.promised)
    faults = schedule(seed, minutes)
    say(f"seed {seed}: {len(faults)} faults in {minutes:g} min, {per_second:g} commands a second")
    await workload.sign_up(100)  # so that everybody has begun
    observer.began = time.monotonic()
    async with observer.observing():
        async with workload.at(per_second):
            telling = asyncio.create_task(_tell(outcome, observer, system, say))
            try:
                await _Run(system, outcome, observer).make(faults, minutes * 60)
            finally:
                telling.cancel()
        say("waiting for quiet")
        ended = time.monotonic()
        try:
            outcome.report = await system.verified(within_s=_QUIET_WITHIN_S)
            outcome.wrong = await system.wrong_answers()
        except (CannotVerify, AssertionError) as error:
            outcome.never_quiet = str(error)
        outcome.quiet_after_s = round(time.monotonic() - ended, 1)
    outcome.samples, outcome.stalls = observer.samples, observer.stalls.ended
    outcome.answered, outcome.cut_off = len(workload.promised), len(workload.cut_off)
    outcome.repeated, outcome.latencies_s = workload.repeated, workload.latencies_s
    return outcome


async def _tell(outcome: Outcome, observer: Observer, system: System, say: Say) -> None:
    while True:
        await asyncio.sleep(_SAY_EVERY_S)
        last = observer.samples[-1]
        say(
            f"{observer.now_s:6.0f} s  {len(system.workload.promised):6,} answered"
            f"  {len(system.workload.cut_off):4,} cut off  {outcome.kills:4,} kills"
            f"  {sum(last.outboxes.values()):5,} in outboxes  {sum(last.lags.values()):5,} behind"
        )


def write(outcome: Outcome, directory: Path) -> Path:
    """Write the figures and the page, and return where the page is."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(outcome.as_dict(), indent=2))
    target = directory / "report.html"
    target.write_text(page(outcome), encoding="utf-8")
    return target


def explain(outcome: Outcome) -> str:
    """Say what is broken, and what is needed to find out why."""
    last = "\n".join(f"  {each.fault}" for each in outcome.done[-20:])
    return "\n".join(
        [
            *outcome.broken,
            f"seed: {outcome.seed} (run it again: --seed {outcome.seed})",
            f"the last faults:\n{last}",
            f"logs: {outcome.logs}",
        ]
    )


def main() -> None:
    """Make faults for some minutes; exit with 1 when something is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--per-second", type=float, default=PER_SECOND, help="commands")
    parser.add_argument(
        "--directory", type=Path, default=Path(".local/soak"), help="for reports, one folder each"
    )
    arguments = parser.parse_args()
    # While nothing is in it, so that `make clean` knows that it may be removed.
    make_cluster_directory(arguments.directory.absolute().parent)
    directory = (arguments.directory / time.strftime("%Y-%m-%d-%H%M%S")).absolute()
    with running_system(directory / "system", seed=arguments.seed) as system:
        outcome = asyncio.run(
            run(
                system,
                arguments.seed,
                arguments.minutes,
                per_second=arguments.per_second,
                say=_print,
            )
        )
    _print(f"report: {write(outcome, directory)}")
    if outcome.broken:
        _print(explain(outcome))
        sys.exit(1)
    # Gigabytes that nobody needs, since nothing is wrong.
    shutil.rmtree(directory / "system")
    _print("nothing is lost")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
