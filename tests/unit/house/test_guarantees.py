"""Each promise of docs/guarantees.md names tests that hold it, and they are there."""

import ast
import re
from functools import cache

import pytest

from .repository import read

PAGE = "docs/guarantees.md"
PROMISES = re.findall(r"(?ms)^## (\d\. [^\n]+)\n(.*?)(?=^## )", read(PAGE))


def named_tests(text: str) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", text)


@cache
def those_in(path: str) -> set[str]:
    """The tests of a file, as pytest names them."""
    tests = set()
    for node in ast.parse(read(path)).body:
        within = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        tests |= {
            prefix + each.name
            for each in within
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            and each.name.startswith("test_")
        }
    return tests


def test_there_are_five() -> None:
    assert [title[0] for title, _ in PROMISES] == list("12345")


@pytest.mark.parametrize(("title", "text"), PROMISES, ids=[title for title, _ in PROMISES])
def test_each_is_held_by_tests(title: str, text: str) -> None:
    assert len(named_tests(text)) > 1


@pytest.mark.parametrize("test", named_tests(read(PAGE)))
def test_a_test_that_is_named_is_there(test: str) -> None:
    path, _, name = test.partition("::")

    assert name in those_in(path)
