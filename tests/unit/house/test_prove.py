"""Which failures of a test `make prove` takes for noticing the removed guard, and which not."""

import pytest

from tests.prove.bench import Outcomes, unnoticed_by
from tests.prove.mutation import Drifted, Mutation

TEST = "tests/unit/test_x.py::TestX::test_it"
NAME = "tests.unit.test_x.TestX.test_it"


def mutation(before: str) -> Mutation:
    return Mutation("x", "x", "x.py", before, "if False:", (TEST,))


def test_a_guard_is_replaced_where_it_is() -> None:
    assert mutation("if late:").mutate("if late:\n    wait()\n") == "if False:\n    wait()\n"


@pytest.mark.parametrize("source", ["if later:\n", "if late:\nif late:\n"])
def test_a_guard_that_is_not_there_exactly_once_is_refused(source: str) -> None:
    with pytest.raises(Drifted, match="not once"):
        mutation("if late:").mutate(source)


@pytest.mark.parametrize(
    "message",
    ["assert 1 == 2\n +  where", "AssertionError: x", "TimeoutError", "Failed: DID NOT RAISE x"],
)
def test_a_failed_assertion_or_a_timeout_is_noticed(message: str) -> None:
    assert unnoticed_by(TEST, {NAME: [message]}) is None
    assert unnoticed_by(TEST, {NAME: [message, "failed on teardown"]}) is None


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ({}, "was not run"),
        ({NAME + "_too": ["assert 1 == 2"]}, "was not run"),
        ({NAME: []}, "stays green"),
        ({NAME + "[a]": ["assert 1 == 2"], NAME + "[b]": []}, "stays green"),
        ({NAME: ["NameError: name 'x' is not defined"]}, "breaks: NameError"),
        ({NAME: ["failed on setup with x"]}, "breaks: failed on setup"),
    ],
)
def test_anything_else_is_not_noticed(outcomes: Outcomes, why: str) -> None:
    assert (unnoticed_by(TEST, outcomes) or "").startswith(why)
