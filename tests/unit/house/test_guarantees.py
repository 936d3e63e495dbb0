"""Each promise of docs/guarantees.md names tests and guards that hold it, and they are there."""

import ast
import re
from functools import cache

import pytest

from tests.prove.mutation import Mutation
from tests.prove.mutations import MUTATIONS

from .repository import ROOT, read, tracked_files

PAGE = "docs/guarantees.md"
PROMISES = re.findall(r"(?ms)^## (\d\. [^\n]+)\n(.*?)(?=^## )", read(PAGE))


def named_tests(text: str) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", text)


def named_guards(text: str) -> list[tuple[str, str]]:
    """Return name and sentence of each guard in a list of them."""
    listed = re.findall(r"(?ms)^- `([a-z-]+)`: (.*?)\.(?=\n- |\n\n)", text)
    return [(name, " ".join(sentence.split())) for name, sentence in listed]


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


def inherited_in(path: str) -> set[str]:
    """The tests of a file that its classes have from suites elsewhere, as pytest names them."""
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for node in ast.parse(read(path)).body
        if isinstance(node, ast.ClassDef)
    }
    suites = [str(each) for each in tracked_files() if each.name.endswith("_suite.py")]
    return {
        test.replace(f"{base}::", f"{name}::")
        for name, bases_of in bases.items()
        for base in bases_of
        for suite in suites
        for test in those_in(suite)
        if test.startswith(f"{base}::")
    }


def test_the_guards_are_those_that_make_prove_takes_away() -> None:
    assert sorted(named_guards(read(PAGE))) == sorted((each.name, each.guard) for each in MUTATIONS)


@pytest.mark.parametrize(("title", "text"), PROMISES, ids=[title for title, _ in PROMISES])
def test_each_is_held_by_guards(title: str, text: str) -> None:
    assert named_guards(text)


every_mutation = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)


@every_mutation
def test_a_guard_is_there_to_be_taken_away(mutation: Mutation) -> None:
    compile(mutation.mutate(read(mutation.file)), mutation.file, "exec")


@every_mutation
def test_a_guard_is_missed_by_tests_that_are_there(mutation: Mutation) -> None:
    assert mutation.proven_by
    for test in mutation.proven_by:
        path, _, name = test.partition("[")[0].partition("::")
        assert (ROOT / path).is_file()
        assert name in those_in(path) | inherited_in(path)
