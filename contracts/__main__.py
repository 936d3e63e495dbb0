"""`python -m contracts generate` writes the files made from the code; `check` compares them."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from contracts.generated import HERE, breaking_changes, mistakes, out_of_date, write

_BREAKS = (
    "This is committed, so it may have readers. Publish the change as a new version, beside the"
    " old one (docs/extending.md)."
)


def main(arguments: Sequence[str] | None = None, directory: Path = HERE) -> int:
    """Return 1 and print why if a reader would break or a file is not up to date.

    A breaking change is never written over what it breaks; what is not committed has no readers.
    """
    parser = argparse.ArgumentParser(prog="python -m contracts", description=__doc__)
    parser.add_argument("command", choices=["generate", "check"])
    command = parser.parse_args(arguments).command

    if wrong := mistakes():
        _print(wrong)
        return 1
    if breaks := breaking_changes(directory):
        _print([*breaks, _BREAKS])
        return 1
    if command == "generate":
        _print(f"{name}: written" for name in write(directory))
        return 0
    stale = out_of_date(directory)
    _print(f"{name}: not up to date; run make contracts" for name in stale)
    return 1 if stale else 0


def _print(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
