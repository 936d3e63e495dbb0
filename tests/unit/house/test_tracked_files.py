"""Patterns that no tracked file may contain.

They are: a path into a home or work directory, a host that packages come from, a note that
something is to be done, a body that was left out, a skipped test.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from .repository import ROOT, files

# Each has a letter in brackets, so that it does not match itself.
_HOSTS: Final = (
    r"p[y]pi\.org",
    r"p[y]thonhosted\.org",
    r"m[a]ven\.(?:org|apache\.org|google\.com)",
    r"n[p]mjs\.(?:org|com)",
    r"c[r]ates\.io",
    r"d[o]cker\.io",
    r"g[h]cr\.io",
    r"q[u]ay\.io",
    r"g[c]r\.io",
)
EVERYWHERE: Final = {
    "a home or work directory": re.compile(
        r"(?<![\w.~-])(?:/(?:h[o]me|Use[r]s)/[\w.-]+/|/(?:r[o]ot|w[o]rk)/[\w.-]|[A-Z]:\\Use[r]s\\)"
    ),
    "a host that packages come from": re.compile(rf"(?i)\b(?:{'|'.join(_HOSTS)})"),
    "something to be done": re.compile(r"\b(?:TOD[O]|FIXM[E])\b"),
}
IN_PYTHON: Final = {
    "a body left out": re.compile(r"\bNotImplemente[d]Error\b"),
    "a skipped test": re.compile(
        r"\bpytest\.(?:mark\.)?(?:ski[p]|xfai[l]|importorski[p])|\bskipT[e]st\b"
    ),
}
# They need what may be missing: node, PgBouncer, the repository's history, a container engine. They
# say so, and are skipped there.
_MAY_BE_SKIPPED: Final = {
    Path("tests/containers.py"),
    Path("tests/integration/test_foreign_client.py"),
    Path("tests/guides/test_last_release.py"),
    Path("tests/integration/chassis/persistence/test_pgbouncer.py"),
}
# Published by others, and kept unchanged.
_VENDORED: Final = Path("tests/contract/vendor")


def findings(text: str, patterns: dict[str, re.Pattern[str]]) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in patterns.items():
            if pattern.search(line):
                yield f"line {number}: {what}"


def text_of(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def patterns_for(path: Path) -> dict[str, re.Pattern[str]]:
    if path.suffix != ".py" or path in _MAY_BE_SKIPPED:
        return EVERYWHERE
    return EVERYWHERE | IN_PYTHON


def test_no_file_contains_any_of_them() -> None:
    found = [
        f"{path}, {finding}"
        for path in files()
        if not path.is_relative_to(_VENDORED)
        for finding in findings(text_of(path), patterns_for(path))
    ]

    assert found == []


# The bar is removed; it keeps these lines from being found themselves.
@pytest.mark.parametrize(
    "line",
    [
        "see /ho|me/ada/src/notes.md",
        "cd /wo|rk/main",
        'DIRECTORY = "/Use|rs/ada/onboarding"',
        r"C:\Use|rs\ada",
        "--index-url https://py|pi.org/simple",
        "image: gh|cr.io/ada/users",
        "https://repo1.ma|ven.org/maven2",
        "# TO|DO: later",
        "    raise NotImplemented|Error",
        '@pytest.mark.sk|ip(reason="slow")',
        'pytest.sk|ip("no Docker")',
        "@pytest.mark.xf|ail",
    ],
)
def test_a_forbidden_line_is_found(line: str) -> None:
    assert list(findings(line.replace("|", ""), EVERYWHERE | IN_PYTHON))


@pytest.mark.parametrize(
    "line",
    [
        "GET /users/me/tasks and /Users/me",
        "~/.cache/kafka-native-onboarding, for root /var/cache",
        "#!/usr/bin/env bash",
        "the homes of work and roots",
        "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "aiokafka==0.14.0 is a package, maven a tool",
        "if exists: continue  # skip what is there",
    ],
)
def test_another_line_is_not(line: str) -> None:
    assert list(findings(line, EVERYWHERE | IN_PYTHON)) == []
