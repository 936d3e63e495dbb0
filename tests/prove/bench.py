"""A copy of the tracked files in which guards are removed, and the results of their tests."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from local_cluster.testing import running_infrastructure
from tests.infrastructure import SHARED_BY_RUNS
from tests.prove.mutation import Drifted, Mutation

_ROOT: Final = Path(__file__).resolve().parents[2]
_SOME_FAILED: Final = 1
# All tests take a few minutes: this bound is for one that hangs beyond its own time-out.
_RUN_WITHIN_S: Final = 900
# How the message of a failed assertion begins, unlike that of code that the mutation broke.
_NOTICED: Final = re.compile(
    r"assert\b|AssertionError|TimeoutError|Failed: (DID NOT RAISE|Timeout)"
)

Outcomes = Mapping[str, Sequence[str]]
"""Each test that was run, by its name in pytest's report, and its failure messages."""


class NotRun(Exception):
    """pytest did not get as far as running the tests."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of a guard's tests without it; ``unnoticed`` names those that did not notice."""

    mutation: Mutation
    seconds: float
    unnoticed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Bench:
    """A copy of the tracked files, and the directory of the servers that its runs share."""

    tree: Path
    servers: Path

    def run(self, tests: Iterable[str]) -> Outcomes:
        """Run these tests in the copy.

        :raises NotRun: pytest could not run them
        """
        report = self.servers / "report.xml"
        report.unlink(missing_ok=True)
        options = ["-q", "-p", "no:cacheprovider"]
        options += [f"--junitxml={report}", f"--basetemp={self.servers / 'tests'}"]
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=self.tree,
                # A cached module of the same second and size would be taken for the mutated one.
                env=os.environ
                | {SHARED_BY_RUNS: str(self.servers), "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                check=False,
                timeout=_RUN_WITHIN_S,
            )
        except subprocess.TimeoutExpired:
            raise NotRun(f"pytest did not end within {_RUN_WITHIN_S} s") from None
        if ended.returncode not in (0, _SOME_FAILED):
            raise NotRun(f"pytest ended with {ended.returncode}: {ended.stdout[-500:]}")
        return _outcomes(report)

    def prove(self, mutation: Mutation) -> Proof:
        """Run a guard's tests without the guard."""
        file = self.tree / mutation.file
        source = file.read_text()
        began = time.monotonic()
        try:
            file.write_text(mutation.mutate(source))
            outcomes = self.run(mutation.proven_by)
        except (Drifted, NotRun) as error:
            unnoticed = [str(error)]
        else:
            reasons = {test: unnoticed_by(test, outcomes) for test in mutation.proven_by}
            unnoticed = [f"{test} {reason}" for test, reason in reasons.items() if reason]
        finally:
            file.write_text(source)
        return Proof(mutation, time.monotonic() - began, unnoticed)


def _outcomes(report: Path) -> Outcomes:
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    # A test that fails, and then fails in its teardown, is there twice.
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - written by our pytest
        messages = outcomes[f"{case.get('classname')}.{case.get('name')}"]
        messages += [each.get("message", "") for each in case if each.tag in ("failure", "error")]
    return outcomes


def unnoticed_by(test: str, outcomes: Outcomes) -> str | None:
    """Return why a test did not notice that the guard is removed, or None if it did."""
    name = test.replace("/", ".").replace(".py::", ".").replace("::", ".")
    # Without its parameters, a name stands for the test with each of them.
    ran = [
        messages
        for each, messages in outcomes.items()
        if each == name or each.startswith(f"{name}[")
    ]
    if not ran:
        return "was not run"
    if not all(ran):
        return "stays green"
    broken = [each for each in ran if not any(map(_NOTICED.match, each))]
    return f"breaks: {broken[0][0][:200]}" if broken else None


@contextmanager
def bench() -> Iterator[Bench]:
    """Make a copy of the tracked files, and run the servers, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="prove-") as directory:
        tree, servers = Path(directory, "tree"), Path(directory, "servers")
        servers.mkdir()
        _copy_tracked_files(tree)
        with (
            # Every run uses these instead of starting its own.
            running_infrastructure(servers / "postgres", kafka=False),
            running_infrastructure(servers / "kafka", postgres=False),
        ):
            yield Bench(tree, servers)


def _copy_tracked_files(to: Path) -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],  # noqa: S607 - the git on the path
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (_ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, to / name)
