"""Finds every failpoint in the code, so that a new one need not be listed."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_NOT_THE_PRODUCT: Final = {"tests", "benchmarks"}


@cache
def failpoints() -> tuple[str, ...]:
    """Return the name of every failpoint in the product's packages."""
    found: set[str] = set()
    for package in sorted(each.parent for each in ROOT.glob("*/__init__.py")):
        if package.name not in _NOT_THE_PRODUCT:
            for file in package.rglob("*.py"):
                for call in calls_in(file.read_text(encoding="utf-8")):
                    found |= names_in(call)
    return tuple(sorted(found))


def calls_in(source: str) -> Iterator[ast.Call]:
    """Yield every call of ``failpoint``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id == "failpoint")
            or (isinstance(node.func, ast.Attribute) and node.func.attr == "failpoint")
        ):
            yield node


def names_in(call: ast.Call) -> set[str]:
    """Return the names that a call may pass; none if they are not literals."""
    return set(_literals(call.args[0])) if len(call.args) == 1 else set()


def _literals(argument: ast.expr) -> Iterator[str]:
    match argument:
        case ast.Constant(value=str(name)):
            yield name
        case ast.IfExp(body=one, orelse=other):
            yield from _literals(one)
            yield from _literals(other)
