"""``python -m tests.faults.random_run``: random faults under load; then the invariants."""

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
from local_cluster.settings import REPOSITORY
from tests.faults.harness import System, running_system
from tests.faults.observing import EVERY_S, Observer, Sample, Stall
from tests.faults.report import page
from tests.faults.schedule import Fault, Kind, schedule
from verification.addresses import CannotVerify
from verification.report import Report

PER_SECOND: Final = 15.0
_SYSTEMS: Final = REPOSITORY / ".local" / "soak"
# Also for a worker that is started again: under load and other faults a slow start cannot be
# distinguished from a slow machine. `test_stalls` asserts the 5 s with no other fault.
FLOWS_AGAIN_WITHIN_S: Final = 10.0

_CALM_BEFORE_S: Final = 3.0
# Share of the samples that an idle machine would take.
_ENOUGH_SAMPLES: Final = 0.5
_REPORT_EVERY_S: Final = 5.0
_RUNS_WITHIN_S: Final = 3.0
_QUIET_WITHIN_S: Final = 180.0
# By which signal an added worker ends; see `add_worker`.
_LAST_SIGNALS: Final = {Kind.LEAVE: signal.SIGTERM, Kind.DIE: signal.SIGKILL}


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault as it happened, with its real times; missed if its process did not run."""

    fault: Fault
    at_s: float
    until_s: float
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long a worker's partitions stood still after it died, with no other fault."""

    fault: Fault
    seconds: float | None
    """None: not measurable, because not all was well before, or the machine was too busy."""
    others_s: float
    """The longest that a partition of another service stood still meanwhile."""

    @property
    def in_time(self) -> bool:
        return self.seconds is None or self.seconds <= FLOWS_AGAIN_WITHIN_S


@dataclass
class Outcome:
    """The parameters of a run, and its results."""

    seed: int
    minutes: float
    per_second: float
    logs: str
    injected: list[InjectedFault] = field(default_factory=list)
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
        return Counter(str(each.fault.kind) for each in self.injected if not each.missed)

    @property
    def kills(self) -> int:
        """How many processes were killed with SIGKILL."""
        return self.counts[Kind.KILL] + self.counts[Kind.DIE]

    @property
    def restarts(self) -> dict[str, int]:
        return dict(self.samples[-1].restarts) if self.samples else {}

    @property
    def recoveries(self) -> list[Recovery]:
        return [
            self._recovery(each) for each in self.injected if each.fault.alone and not each.missed
        ]

    @property
    def lost(self) -> list[str]:
        """Every invariant that does not hold, a line each: what is lost, doubled or wrong."""
        found = [self.never_quiet] if self.never_quiet else []
        if self.report is not None and not self.report.holds:
            found += self.report.broken().splitlines()
        return found + self.wrong

    @property
    def slow(self) -> list[str]:
        """Every recovery that took longer than its bound, a line each."""
        return [
            f"stalls: {each.seconds:.1f} s after {each.fault}: {FLOWS_AGAIN_WITHIN_S:g} s at most"
            for each in self.recoveries
            if not each.in_time
        ]

    @property
    def broken(self) -> list[str]:
        """Everything that is broken, a line each."""
        return self.lost + self.slow

    @property
    def verdicts(self) -> list[str]:
        """A line about what is lost, one about recoveries, and one about the machine."""
        loads = quantiles([each.load for each in self.samples]) or {"p50": 0.0, "max": 0.0}
        measured = sum(each.seconds is not None for each in self.recoveries)
        bound = f"{FLOWS_AGAIN_WITHIN_S:g} s"
        lost = f"{len(self.lost)} broken: something is lost or wrong"
        in_time = f"all {measured} recoveries measured took at most {bound}"
        if not measured:
            in_time = "no recovery was measured: too few faults alone, or too busy a machine"
        late = f"{len(self.slow)} of {measured} recoveries took longer than {bound}"
        load = f"the machine's load: {loads['p50']:.1f} (median), {loads['max']:.1f} (highest)"
        return [
            lost if self.lost else "nothing is lost: every invariant holds",
            late if self.slow else in_time,
            f"{load}, on {os.cpu_count()} processors",
        ]

    def _recovery(self, injected: InjectedFault) -> Recovery:
        until = injected.at_s + FLOWS_AGAIN_WITHIN_S
        during = [
            each for each in self.stalls if injected.at_s <= each.end_s and each.begin_s <= until
        ]
        service = injected.fault.who.partition("-")[0]
        stood = max((s.end_s - injected.at_s for s in during if s.service == service), default=0.0)
        return Recovery(
            injected.fault,
            stood if self._is_measurable(injected.at_s, until, service) else None,
            max((s.seconds for s in during if s.service != service), default=0.0),
        )

    def _is_measurable(self, at_s: float, until: float, service: str) -> bool:
        """Whether all was well before, so that this fault caused the stall, with enough samples."""
        before = [each for each in self.samples if at_s - _CALM_BEFORE_S <= each.at_s <= at_s]
        during = [each for each in self.samples if at_s <= each.at_s <= until]
        stood = any(
            each.service == service and each.begin_s < at_s < each.end_s for each in self.stalls
        )
        enough = len(before + during) > _ENOUGH_SAMPLES * (until - at_s + _CALM_BEFORE_S) / EVERY_S
        return (
            enough
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
            "lost": self.lost,
            "slow": self.slow,
            "load": quantiles([each.load for each in self.samples]),
            "commands": {
                "answered": self.answered,
                "cut_off": self.cut_off,
                "repeated": self.repeated,
                "latency_s": quantiles(self.latencies_s),
            },
            "faults": dict(self.counts),
            "missed": sum(each.missed for each in self.injected),
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
                for each in self.injected
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
    """Injects the faults of one schedule, each at its time."""

    def __init__(self, system: System, outcome: Outcome, observer: Observer) -> None:
        self._cluster = system.cluster
        self._outcome = outcome
        self._observer = observer
        self._frozen: dict[str, int] = {}

    async def make(self, faults: Sequence[Fault], seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, fault.at_s - self._observer.now_s))
                group.create_task(self._inject(fault, _last_signal(fault, faults)))
            await asyncio.sleep(max(0.0, seconds - self._observer.now_s))

    async def _inject(self, fault: Fault, last_signal: int) -> None:
        at_s = self._observer.now_s
        match fault.kind:
            case Kind.KILL | Kind.TERM:
                injected = await self._send(fault.who, _signal(fault))
            case Kind.FREEZE:
                injected = await self._freeze(fault)
            case Kind.JOIN:
                service, _, number = fault.who.partition("-")
                await asyncio.to_thread(
                    self._cluster.add_worker, service, int(number), stop_signal=last_signal
                )
                injected = True
            case _:
                await asyncio.to_thread(self._cluster.remove_worker, fault.who)
                injected = True
        self._outcome.injected.append(
            InjectedFault(fault, at_s, self._observer.now_s, missed=not injected)
        )

    async def _send(self, who: str, number: int) -> bool:
        """Send a signal once the process runs; return false if it does not start in time."""
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
                # It may have been killed meanwhile, and its process id is not its own then.
                if await self._pid_of(fault.who) == pid:
                    os.kill(pid, signal.SIGCONT)
        return True

    async def _pid_of(self, who: str) -> int:
        found = (await asyncio.to_thread(self._cluster.processes)).get(who)
        return found.pid if found else 0


def _signal(fault: Fault) -> int:
    """Return the signal that kills a process, or stops it in order."""
    if fault.kind is Kind.KILL:
        return signal.SIGKILL
    # On SIGTERM PostgreSQL waits for its clients to disconnect, and the services never do.
    return signal.SIGINT if fault.who == "postgres" else signal.SIGTERM


def _last_signal(joining: Fault, faults: Sequence[Fault]) -> int:
    """Return the signal by which an added worker ends: that of its next fault."""
    return next(
        (
            _LAST_SIGNALS[each.kind]
            for each in faults
            if each.who == joining.who and each.kind in _LAST_SIGNALS and each > joining
        ),
        signal.SIGTERM,
    )


PrintLine = Callable[[str], None]


async def run(
    system: System,
    seed: int,
    minutes: float,
    *,
    per_second: float = PER_SECOND,
    print_line: PrintLine,
) -> Outcome:
    """Inject the faults of a seed under load, wait for rest, and check every invariant."""
    workload = system.workload
    outcome = Outcome(seed, minutes, per_second, str(system.logs))
    observer = Observer(system.cluster, workload.promised)
    faults = schedule(seed, minutes)
    print_line(
        f"seed {seed}: {len(faults)} faults in {minutes:g} min, {per_second:g} commands a second"
    )
    await workload.sign_up(100)  # so that every consumer has begun
    observer.began = time.monotonic()
    async with observer.observing():
        async with workload.at(per_second):
            report = _report(outcome, observer, system, print_line)
            reporting = asyncio.create_task(report)
            try:
                await _Run(system, outcome, observer).make(faults, minutes * 60)
            finally:
                reporting.cancel()
        print_line("waiting until the system is at rest")
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


async def _report(
    outcome: Outcome, observer: Observer, system: System, print_line: PrintLine
) -> None:
    while True:
        await asyncio.sleep(_REPORT_EVERY_S)
        last = observer.samples[-1]
        print_line(
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
    """Return what is broken, and what is needed to find out why."""
    last = "\n".join(f"  {each.fault}" for each in outcome.injected[-20:])
    return "\n".join(
        [
            *outcome.broken,
            "",
            f"seed: {outcome.seed} (run it again: --seed {outcome.seed})",
            f"the last faults:\n{last}",
            f"logs: {outcome.logs}",
        ]
    )


def main() -> None:
    """Inject faults for some minutes; exit with 1 if something is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=_more_than_none, default=3.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--per-second", type=float, default=PER_SECOND, help="commands")
    parser.add_argument(
        "--directory", type=Path, default=Path("reports/soak"), help="for reports, one folder each"
    )
    arguments = parser.parse_args()
    began = time.strftime("%Y-%m-%d-%H%M%S")
    # `make clean` removes the system that ran, and keeps the report.
    make_cluster_directory(_SYSTEMS.parent)
    with running_system(_SYSTEMS / began, seed=arguments.seed) as system:
        outcome = asyncio.run(
            run(
                system,
                arguments.seed,
                arguments.minutes,
                per_second=arguments.per_second,
                print_line=_print,
            )
        )
    _print(f"report: {write(outcome, arguments.directory.absolute() / began)}")
    for line in outcome.verdicts:
        _print(line)
    if outcome.broken:
        _print(explain(outcome))
        sys.exit(1)
    # Gigabytes that are of no use when nothing is broken.
    shutil.rmtree(_SYSTEMS / began)


def _more_than_none(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError("must be greater than 0")
    return minutes


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
