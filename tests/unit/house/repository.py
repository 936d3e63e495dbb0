"""The repository as the tests of its rules read it: its files, configuration, pages."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[3]

# So that a test fails before `git add`, and not only after it.
_ALSO_NEW = ("--cached", "--others", "--exclude-standard")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@cache
def files(root: Path = ROOT) -> tuple[Path, ...]:
    """Every file that git tracks or would add, relative to the repository."""
    listed = subprocess.run(
        # Also where another user owns the checkout.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", *_ALSO_NEW],  # noqa: S607
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # A file in a conflict is listed more than once.
    names = dict.fromkeys(listed.split("\0"))
    return tuple(Path(name) for name in names if name and (root / name).is_file())


def read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def configuration() -> Any:
    return tomllib.loads(read("pyproject.toml"))


def packages(root: Path = ROOT) -> set[str]:
    """The packages of the product: all but the tests and the benchmarks."""
    found = {path.parts[0] for path in files(root) if path.parts[1:] == ("__init__.py",)}
    return found - {"tests", "benchmarks"}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: Path | str) -> Iterator[Block]:
    for language, text in _FENCE.findall(read(page)):
        yield Block(language, text)


def prose(page: Path | str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", read(page))


def pages() -> tuple[Path, ...]:
    return tuple(path for path in files() if path.suffix == ".md")
