"""docs/security.md has each requirement of ASVS 5.0 up to level 2 once, and says how it stands."""

import re

import pytest

from .repository import read
from .test_guarantees import named_tests

TABLES = read("docs/security.md").partition("## OWASP ASVS")[2]
ROWS = re.findall(r"(?m)^\| (\d[\d., ]*) \| [^|]+ \| ([a-z]+) \| ([^|]+) \|$", TABLES)

# Of each section, the highest number with level 1 or 2. The standard begins each with those.
HIGHEST = dict(
    re.findall(
        r"([\d.]+):(\d+)",
        """
    1.1:2 1.2:9 1.3:11 1.4:3 1.5:2 2.1:3 2.2:3 2.3:4 2.4:1 3.2:2 3.3:4 3.4:6 3.5:5 3.7:2 4.1:3
    4.2:1 4.3:2 4.4:4 5.1:1 5.2:3 5.3:2 5.4:3 6.1:3 6.2:12 6.3:4 6.4:4 6.5:5 6.6:3 6.8:4 7.1:3
    7.2:4 7.3:2 7.4:5 7.5:2 7.6:2 8.1:2 8.2:3 8.3:1 8.4:1 9.1:3 9.2:4 10.1:2 10.2:2 10.3:4
    10.4:11 10.5:5 10.6:2 10.7:3 11.1:2 11.2:3 11.3:3 11.4:4 11.5:1 11.6:1 12.1:3 12.2:2 12.3:4
    13.1:1 13.2:5 13.3:2 13.4:5 14.1:2 14.2:4 14.3:3 15.1:3 15.2:3 15.3:7 16.1:1 16.2:5 16.3:4
    16.4:3 16.5:3 17.1:1 17.2:4 17.3:2
    """,
    )
)


def test_each_requirement_is_there_once() -> None:
    there = [each for ids, _, _ in ROWS for each in ids.split(", ")]

    assert sorted(there) == sorted(
        f"{section}.{number}"
        for section, highest in HIGHEST.items()
        for number in range(1, int(highest) + 1)
    )


def test_every_line_of_the_tables_is_such_a_row() -> None:
    assert len(re.findall(r"(?m)^\| \d", TABLES)) == len(ROWS)


@pytest.mark.parametrize(("ids", "state", "why"), ROWS, ids=[ids for ids, _, _ in ROWS])
def test_a_row_says_how_it_stands(ids: str, state: str, why: str) -> None:
    assert state in {"met", "none", "yours", "exception", "open"}
    if state == "met":
        assert named_tests(why) or "](" in why, "a test, or the page that it asks for"
