"""`python -m tests.prove`: takes each guard away in turn, and sees its tests go red.

It works in a copy of the tracked files, so the checkout stays as it is, and all runs share one
PostgreSQL and one Kafka.
"""

import argparse
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
from tests.prove.mutation import Mutation
from tests.prove.mutations import MUTATIONS

_ROOT: Final = Path(__file__).resolve().parents[2]
_SOME_FAILED: Final = 1
# How a test says that it saw something wrong, and not that the mutation is no working code.
_NOTICED: Final = re.compile(
    r"assert\b|AssertionError|TimeoutError|Failed: (DID NOT RAISE|Timeout)"
)

Outcomes = Mapping[str, Sequence[str]]
"""Each test that was run, as pytest's report names it, and what it said when it failed."""


class NotRun(Exception):
    """pytest did not get as far as running the tests."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of the tests without a guard; ``unnoticed`` says of each what was wrong."""

    mutation: Mutation
    seconds: float
    unnoticed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Bench:
    """A copy of the tracked files, and where the servers are that its runs share."""

    tree: Path
    servers: Path

    def run(self, tests: Iterable[str]) -> Outcomes:
        """Run these tests as they are now.

        :raises NotRun: pytest could not
        """
        report = self.servers / "report.xml"
        report.unlink(missing_ok=True)
        options = ["-q", "-p", "no:cacheprovider"]
        options += [f"--junitxml={report}", f"--basetemp={self.servers / 'tests'}"]
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self.tree,
            # A cached module of the same second and size would pass for the mutated one.
            env=os.environ | {SHARED_BY_RUNS: str(self.servers), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode not in (0, _SOME_FAILED):
            raise NotRun(f"pytest ended with {ended.returncode}:\n{ended.stdout[-2_000:]}")
        return _outcomes(report)

    def prove(self, mutation: Mutation) -> Proof:
        """Run a guard's tests without the guard.

        :raises Drifted: the guard's text is not there exactly once
        :raises NotRun: pytest could not run them
        """
        file = self.tree / mutation.file
        source = file.read_text()
        began = time.monotonic()
        file.write_text(mutation.mutate(source))
        try:
            outcomes = self.run(mutation.proven_by)
        finally:
            file.write_text(source)
        unnoticed = [
            f"{test} {trouble}"
            for test in mutation.proven_by
            if (trouble := _unnoticed(outcomes, test)) is not None
        ]
        return Proof(mutation, time.monotonic() - began, unnoticed)


def _outcomes(report: Path) -> Outcomes:
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    # A test that fails, and then breaks as it is taken down, is there twice.
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - written by our pytest
        said = outcomes[f"{case.get('classname')}.{case.get('name')}"]
        said += [each.get("message", "") for each in case if each.tag in ("failure", "error")]
    return outcomes


def _unnoticed(outcomes: Outcomes, test: str) -> str | None:
    """Say why a test did not notice that the guard was gone; None: it did."""
    name = test.replace("/", ".").replace(".py::", ".").replace("::", ".")
    # Without its parameters, a name stands for the test with each of them.
    ran = [said for each, said in outcomes.items() if each == name or each.startswith(f"{name}[")]
    if not ran:
        return "was not run"
    if not all(ran):
        return "stays green"
    broken = [said for said in ran if not any(_NOTICED.match(each) for each in said)]
    return f"breaks: {broken[0][0][:200]}" if broken else None


@contextmanager
def _bench() -> Iterator[Bench]:
    """Have a copy of the tracked files, and the servers, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="prove-") as directory:
        tree, servers = Path(directory, "tree"), Path(directory, "servers")
        servers.mkdir()
        _copy_tracked_files(tree)
        with (
            # Every run joins these, where it would start its own.
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


def _chosen(names: Sequence[str]) -> Sequence[Mutation]:
    known = {each.name: each for each in MUTATIONS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no guard of that name: {', '.join(unknown)}; --list shows them")
    return [known[name] for name in names] or MUTATIONS


def _prove(mutations: Sequence[Mutation]) -> bool:
    """Print what each guard's tests make of its absence; tell whether all was noticed."""
    began = time.monotonic()
    tests = list(dict.fromkeys(test for each in mutations for test in each.proven_by))
    width = max(len(each.name) for each in mutations)
    proofs: list[Proof] = []
    with _bench() as bench:
        with_all = bench.run(tests)
        red = [test for test in tests if _unnoticed(with_all, test) != "stays green"]
        if red:
            _say("Red, or not run, with every guard in its place:", *red)
            return False
        _say(f"{len(tests)} tests are green with every guard in its place.")
        for mutation in mutations:
            proof = bench.prove(mutation)
            proofs.append(proof)
            noticed = "NOT NOTICED" if proof.unnoticed else "red"
            _say(f"  {mutation.name:{width}}  {noticed:11}  {proof.seconds:4.0f} s")
    _say_all(proofs, width)
    unnoticed = [each for each in proofs if each.unnoticed]
    _say(
        "",
        f"{len(proofs) - len(unnoticed)} of {len(proofs)} guards are shown to be needed,"
        f" in {time.monotonic() - began:.0f} s.",
    )
    return not unnoticed


def _say_all(proofs: Sequence[Proof], width: int) -> None:
    _say("", f"{'guard':{width}}  red?  tests", "-" * (width + 30))
    for proof in proofs:
        name = proof.mutation.name
        tests = proof.unnoticed or [each.rpartition("/")[2] for each in proof.mutation.proven_by]
        for line in tests:
            _say(f"{name:{width}}  {'no ' if proof.unnoticed else 'yes'}   {line}")
            name = ""


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 - the command's output


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", default=[])
    parser.add_argument("--list", action="store_true", help="name the guards and end")
    arguments = parser.parse_args()
    mutations = _chosen(arguments.only)
    if arguments.list:
        for each in mutations:
            _say(f"{each.name}: {each.guard}")
        return 0
    return 0 if _prove(mutations) else 1


if __name__ == "__main__":
    sys.exit(main())
