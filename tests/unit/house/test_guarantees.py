"""Each promise of docs/guarantees.md names tests and guards, and all of them exist.

So do the tests that docs/security.md names.
"""

import ast
import re
from functools import cache

import pytest

from tests.prove.mutation import Mutation
from tests.prove.mutations import MUTATIONS

from .repository import ROOT, files, read

PAGE = "docs/guarantees.md"
NAMING_TESTS = (PAGE, "docs/security.md")
PROMISES = re.findall(r"(?ms)^## (\d\. [^\n]+)\n(.*?)(?=^## )", read(PAGE))


def named_tests(text: str) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", text)


def named_guards(text: str) -> list[tuple[str, str]]:
    """Return name and sentence of each guard in a list of them."""
    listed = re.findall(r"(?ms)^- `([a-z-]+)`: (.*?)\.(?=\n- |\n\n)", text)
    return [(name, " ".join(sentence.split())) for name, sentence in listed]


@cache
def names_of_tests(path: str) -> set[str]:
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


def test_there_are_five_promises() -> None:
    assert [title[0] for title, _ in PROMISES] == list("12345")


@pytest.mark.parametrize(("title", "text"), PROMISES, ids=[title for title, _ in PROMISES])
def test_each_promise_names_tests(title: str, text: str) -> None:
    assert len(named_tests(text)) > 1


@pytest.mark.parametrize(
    "test", sorted({test for page in NAMING_TESTS for test in named_tests(read(page))})
)
def test_a_named_test_exists(test: str) -> None:
    path, _, name = test.partition("::")

    assert name in names_of_tests(path)


def inherited_in(path: str) -> set[str]:
    """The tests that classes of a file inherit from suites, as pytest names them."""
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for node in ast.parse(read(path)).body
        if isinstance(node, ast.ClassDef)
    }
    suites = [str(each) for each in files() if each.name.endswith("_suite.py")]
    return {
        test.replace(f"{base}::", f"{name}::")
        for name, bases_of in bases.items()
        for base in bases_of
        for suite in suites
        for test in names_of_tests(suite)
        if test.startswith(f"{base}::")
    }


def test_the_guards_are_those_that_make_prove_removes() -> None:
    assert sorted(named_guards(read(PAGE))) == sorted((each.name, each.guard) for each in MUTATIONS)


@pytest.mark.parametrize(("title", "text"), PROMISES, ids=[title for title, _ in PROMISES])
def test_each_promise_names_guards(title: str, text: str) -> None:
    assert named_guards(text)


every_mutation = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)


@every_mutation
def test_a_guard_can_be_removed(mutation: Mutation) -> None:
    compile(mutation.mutate(read(mutation.file)), mutation.file, "exec")


@every_mutation
def test_the_tests_of_a_guard_exist(mutation: Mutation) -> None:
    assert mutation.proven_by
    for test in mutation.proven_by:
        path, _, name = test.partition("[")[0].partition("::")
        assert (ROOT / path).is_file()
        assert name in names_of_tests(path) | inherited_in(path)
