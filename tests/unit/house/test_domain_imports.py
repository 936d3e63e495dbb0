"""A domain imports only the standard library, ``chassis.domain`` and itself."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .repository import files, read

DOMAINS = [
    path
    for path in files()
    if path.suffix == ".py" and path.parts[1] == "domain" and path.parts[0].endswith("_service")
]


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            elif node.module == "chassis":
                yield from (f"chassis.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def forbidden(source: str, domain: str) -> list[str]:
    """The imports other than the standard library, ``chassis.domain`` and the domain itself."""
    return [
        name
        for name in imported(source)
        if name.split(".")[0] not in sys.stdlib_module_names
        and name != "chassis.domain"
        and name != domain
        and not name.startswith(f"{domain}.")
    ]


def test_there_are_domains_to_check() -> None:
    assert {path.parts[0] for path in DOMAINS} >= {"users_service", "accounts_service"}


@pytest.mark.parametrize("path", DOMAINS, ids=str)
def test_a_domain_imports_nothing_from_outside(path: Path) -> None:
    assert forbidden(read(path), f"{path.parts[0]}.domain") == []


@pytest.mark.parametrize(
    "line",
    [
        "import pydantic",
        "from sqlalchemy.ext.asyncio import AsyncConnection",
        "from chassis.persistence import tables",
        "from chassis.persistence.outbox import Outbox",
        "from contracts.users import UserSignedUpV1",
        "from users_service.application import ports",
        "from users_service.domains import user",
        "from accounts_service.domain import account",
        "from .. import settings",
        "def late():\n    import orjson",
    ],
)
def test_an_import_from_outside_is_found(line: str) -> None:
    assert len(forbidden(f"import datetime\n{line}\n", "users_service.domain")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "import re, dataclasses",
        "from collections.abc import Iterator",
        "from chassis.domain import Aggregate",
        "from chassis import domain",
        "from users_service.domain.values import Username",
    ],
)
def test_an_allowed_import_is_not_reported(line: str) -> None:
    assert forbidden(line, "users_service.domain") == []
