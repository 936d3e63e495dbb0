"""Every failpoint's name is a literal, so that the crash matrix finds it."""

import ast

import pytest

from tests.faults.points import calls_in, failpoints, names_in

from .repository import files, packages, read

CALLS = [
    (path, call)
    for path in files()
    if path.suffix == ".py" and path.parts[0] in packages() and path.name != "failpoints.py"
    for call in calls_in(read(path))
]


def names_of(source: str) -> set[str]:
    (call,) = calls_in(source)
    return names_in(call)


def test_every_call_has_literal_names() -> None:
    assert [f"{path}:{call.lineno}" for path, call in CALLS if not names_in(call)] == []


def test_every_failpoint_is_in_the_matrix() -> None:
    assert CALLS
    assert {name for _, call in CALLS for name in names_in(call)} == set(failpoints())


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("await failpoint('a.before')", {"a.before"}),
        ("await failpoints.failpoint('a.before')", {"a.before"}),
        ("await failpoint('b.before' if parked else 'a.before')", {"a.before", "b.before"}),
        ("await failpoint(name)", set()),
        ("await failpoint(f'{step}.before')", set()),
    ],
)
def test_literal_names_are_found(source: str, names: set[str]) -> None:
    assert names_of(f"async def step():\n    {source}\n") == names


def test_a_definition_is_no_call() -> None:
    assert list(calls_in(ast.unparse(ast.parse("async def failpoint(name): ...")))) == []
