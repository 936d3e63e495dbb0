"""No command of a page has a secret among its arguments, where every user of a machine sees it."""

import re
from pathlib import Path

import pytest

from .repository import blocks, files

_SECRET = re.compile(
    r"""
    :// [^\s/:@]* : [^\s@/]* @          # the password of an address
    | (?i: pass(?:word|wd)? | secret | token ) [=:\s]\S # one that is named
    | \$\( \s* cat \b                   # one that is read from a file
    """,
    re.VERBOSE,
)
# A variable before the command is in its environment, which only its own user can read.
_ENVIRONMENT = re.compile(r"""(?m)^(?:[A-Z_]+=(?:"[^"\n]*"|\S*)\s+(?:\\\n\s*)?)+""")


def secrets_in(commands: str) -> list[str]:
    return [found[0] for found in _SECRET.finditer(_ENVIRONMENT.sub("", commands))]


PAGES = [path for path in files() if path.suffix == ".md"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_command_of_a_page_has_one(page: Path) -> None:
    commands = [each.text for each in blocks(page) if each.language in {"", "sh"}]

    assert [secrets_in(each) for each in commands if secrets_in(each)] == []


@pytest.mark.parametrize(
    "command",
    [
        'psql "postgresql://accounts:$(cat secrets/accounts)@127.0.0.1/accounts"',
        "psql postgresql://accounts:hunter2@127.0.0.1/accounts",
        "curl -d 'username=kate&password=hunter2' localhost/auth/token",
        "users create --password hunter2",
        'curl --header "Authorization: Bearer $(cat token)" localhost',
    ],
)
def test_one_that_has_is_found(command: str) -> None:
    assert secrets_in(command)


@pytest.mark.parametrize(
    "command",
    [
        'PGPASSWORD="$(cat secrets/accounts)" psql -U accounts',
        'PGPASSWORD="$(cat secrets/accounts)" \\\n    psql -U accounts',
        "users create-operator --password-file=secrets/operator",
        "psql postgresql://accounts@127.0.0.1/accounts",
    ],
)
def test_one_that_has_it_elsewhere_is_not(command: str) -> None:
    assert secrets_in(command) == []
