"""The passwords that are chosen most often, which whoever guesses tries first."""

from functools import cache
from importlib.resources import files
from typing import Final

_LIST: Final = files(__package__).joinpath("common_passwords.txt")


@cache
def common_passwords() -> frozenset[str]:
    """Return the 10,000 most common passwords of 8 characters or more, casefolded."""
    _source, _, listed = _LIST.read_text(encoding="utf-8").partition("\n\n")
    return frozenset(listed.splitlines())
