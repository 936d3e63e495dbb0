"""The results of a run, and the machine, as stored in ``benchmarks/results/``."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil
from pydantic import TypeAdapter

from benchmarks.figure import Kind, Metric, Values
from benchmarks.verdicts import Verdict
from local_cluster.settings import REPOSITORY

DIRECTORY: Final = REPOSITORY / "benchmarks" / "results"
_WRITTEN_BY_RUNS: Final = (":!benchmarks/results", ":!docs/benchmarks", ":!docs/benchmarks.md")
_LIBRARIES: Final = (
    "aiokafka",
    "asyncpg",
    "fastapi",
    "faust-streaming",
    "orjson",
    "pydantic",
    "sqlalchemy",
    "uvicorn",
    "uvloop",
)


@dataclass(frozen=True, slots=True)
class SideResult:
    """The results of one side of a figure."""

    name: str
    kind: Kind
    does_less: str
    repeats: Sequence[Values | None]
    """One entry per round; None: it did not run."""
    unavailable: str | None = None
    """Why it can't run here."""
    failed: str | None = None
    """What went wrong."""

    def values(self, metric: str) -> list[float]:
        """Return the metric's value in every round that has one."""
        return [each[metric] for each in self.repeats if each and metric in each]


@dataclass(frozen=True, slots=True)
class FigureResult:
    """The results of all sides of a figure, and the verdicts on its goals."""

    name: str
    title: str
    work: str
    metrics: Sequence[Metric]
    sides: Sequence[SideResult]
    verdicts: Sequence[Verdict]

    @property
    def failed(self) -> bool:
        return any(side.failed for side in self.sides)

    def metric(self, name: str) -> Metric:
        return next(each for each in self.metrics if each.name == name)

    @property
    def ours(self) -> SideResult:
        """The first side of ours; a goal that names no side is about this one."""
        return next(each for each in self.sides if each.kind is Kind.OURS)


@dataclass(frozen=True, slots=True)
class Machine:
    """What it ran on, without the machine's name."""

    processor: str
    cores: int
    memory_gb: float
    kernel: str


@dataclass(frozen=True, slots=True)
class Result:
    """A run: every repeat of every side of every figure, and what they ran on."""

    full: bool
    measured_at: datetime
    commit: str | None
    changed: bool
    """Whether files differed from the commit."""
    machine: Machine
    versions: Mapping[str, str]
    figures: Sequence[FigureResult] = ()

    @property
    def fails(self) -> bool:
        """Whether a side failed, or a goal falls short by more than its spread."""
        return any(
            each.failed or any(verdict.fails for verdict in each.verdicts) for each in self.figures
        )

    @property
    def file(self) -> Path:
        """Where a complete run of this kind and day is stored."""
        return DIRECTORY / f"{self.measured_at:%Y-%m-%d}{'' if self.full else '-quick'}.json"


_JSON: Final = TypeAdapter(Result)


def write(result: Result, file: Path) -> None:
    """Write a result, and replace what the file held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_JSON.dump_json(result, indent=2, exclude_defaults=True) + b"\n")


def read(file: Path) -> Result:
    """Return the result in a file.

    :raises ValueError: it holds no result
    """
    return _JSON.validate_json(file.read_bytes())


def circumstances(postgres: str, *, full: bool) -> Result:
    """Return a result without figures yet, with this time, machine and commit.

    :param postgres: the version of the server
    """
    return Result(
        full=full,
        measured_at=datetime.now(UTC).replace(microsecond=0),
        commit=_git("rev-parse", "HEAD"),
        changed=bool(_git("status", "--porcelain", "--", ".", *_WRITTEN_BY_RUNS)),
        machine=machine(),
        versions={
            "Python": platform.python_version(),
            "Kafka": _kafka(),
            "PostgreSQL": postgres,
            **{each: version(each) for each in _LIBRARIES},
        },
    )


def machine() -> Machine:
    """Return what matters of this machine."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _all_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        kernel=f"{platform.system()} {platform.release()}",
    )


def _all_cores() -> int:
    return os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    model = re.search(r"(?m)^model name\s*: (.+)$", text)
    return model[1] if model else platform.processor() or platform.machine()


def _kafka() -> str:
    lock = (REPOSITORY / "local_cluster" / "kafka.lock").read_text(encoding="utf-8")
    pinned = re.search(r"(?m) org\.apache\.kafka:kafka-clients:(\S+)$", lock)
    assert pinned
    return pinned[1]


def _git(*arguments: str) -> str | None:
    """Return git's output; None if this is no checkout, or git is missing."""
    try:
        return subprocess.run(  # noqa: S603
            ["git", "-c", "safe.directory=*", *arguments],  # noqa: S607 - the git on the path
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
