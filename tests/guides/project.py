"""A copy of the repository, in which a test does what a page says, and runs the suite."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_cluster.settings import Settings
from tests.infrastructure import SHARED_BY_RUNS

#: The tests that read the whole repository.
OF_THE_WHOLE: Final = ("tests/unit/house", "tests/contract/test_catalogue.py")

ROOT: Final = Path(__file__).resolve().parents[2]
_SOME_TIME_S: Final = 600
# What `make check` runs: `make test` begins with it.
_CHECKS: Final = (
    ("ruff", "check", "--no-cache"),
    ("ruff", "format", "--check", "--no-cache"),
    ("mypy",),
    ("contracts", "check"),
)
_ADA: Final = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.com"))
}
_IMPORT_LINTER: Final = str(Path(sys.executable).with_name("lint-imports"))
# The first runs import-linter many times, on code that it has passed here already; the second makes
# an environment of its own.
_LEFT_OUT: Final = (
    "tests/unit/house/test_import_rules.py",
    "tests/contract/test_installed_alone.py",
)


@dataclass(frozen=True)
class Project:
    """A checkout of its own, with the environment and the servers of this test run."""

    root: Path
    servers: Path

    @classmethod
    def copied(cls, root: Path, servers: Path) -> "Project":
        """Copy every file that git tracks or would add, and commit it there."""
        root.mkdir()
        listed = _output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        project = cls(root, servers)
        project.run("git", "init", "--quiet", "--initial-branch=main")
        project._equip()
        project.commit()
        return project

    def cloned(self, root: Path) -> "Project":
        """Clone it, as someone who begins a project of their own."""
        self.run("git", "clone", "--quiet", str(self.root), str(root))
        project = Project(root, self.servers)
        project._equip()
        return project

    def _equip(self) -> None:
        """Give it the environment of this run, and what mypy knows already."""
        (self.root / ".venv").symlink_to(sys.prefix)
        (self.root / ".git" / "info" / "exclude").write_text(".venv\n")
        if (ROOT / ".mypy_cache").is_dir():
            shutil.copytree(ROOT / ".mypy_cache", self.root / ".mypy_cache")

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "as it is")

    def run(self, *command: str, given: str | None = None) -> str:
        """Run a command there, and return its output; it must succeed.

        :param given: what it reads from its standard input
        """
        # What pytest-xdist gives its workers is not meant for the runs within the copy.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        completed = subprocess.run(
            command,
            cwd=self.root,
            env=inherited | _ADA | self._shared(),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SOME_TIME_S,
        )
        shown = f"{shlex.join(command)}\n{completed.stdout[-6000:]}{completed.stderr[-3000:]}"
        assert completed.returncode == 0, shown
        return completed.stdout

    def _shared(self) -> dict[str, str]:
        """Return the settings of a run there: servers and downloads are those of this run."""
        return {
            SHARED_BY_RUNS: str(self.servers),
            # It is named after the project, and a copy may have another name.
            "LOCAL_CACHE_DIRECTORY": str(Settings().cache_directory),
        }

    def follow(self, page: str, section: str, *, tests: Sequence[str]) -> None:
        """Apply the patches of a section, and run its commands, in their order.

        :param tests: what stands for ``make test``, beside every check
        """
        for language, text in blocks_in(section_of(page, section)):
            if language == "diff":
                self.run("git", "apply", "-", given=text)
            elif language == "sh":
                for line in text.replace("\\\n", " ").splitlines():
                    self._type(line, tests)

    def _type(self, line: str, tests: Sequence[str]) -> None:
        match shlex.split(line, comments=True):
            case ["make", "down", "up"]:
                pass  # test_on_a_history.py restarts the service
            case ["make", "test"]:
                self.test(*tests)
            case ["make", *targets]:
                # The environment is that of this run; nothing is to be installed.
                self.run("make", "--old-file=.venv/development", *targets)
            case ["python", *arguments]:
                self.run(sys.executable, *arguments)
            case _:
                self.run("bash", "-c", line)

    def test(self, *paths: str) -> None:
        """Run every check and these tests there."""
        for check in _CHECKS:
            self.run(sys.executable, "-m", *check)
        self.run(_IMPORT_LINTER, "--no-cache")
        options = ["-q", "-p", "no:cacheprovider", *(f"--ignore={each}" for each in _LEFT_OUT)]
        self.run(sys.executable, "-m", "pytest", *options, *paths)


def section_of(page: str, title: str) -> str:
    """Return the text of a section of a page."""
    _, _, text = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {title}\n")
    assert text, f"{page} has no section {title}"
    return text.partition("\n## ")[0]


def blocks_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield language and text of each fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def _output(*command: str) -> str:
    # Also where another user owns the checkout.
    command = (command[0], "-c", "safe.directory=*", *command[1:])
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return completed.stdout
