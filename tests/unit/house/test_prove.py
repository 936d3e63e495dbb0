"""What `make prove` takes for noticed, and what for an accident."""

import pytest

from tests.prove.bench import Outcomes, unnoticed_by
from tests.prove.mutation import Drifted, Mutation

TEST = "tests/unit/test_x.py::TestX::test_it"
NAME = "tests.unit.test_x.TestX.test_it"


def mutation(before: str) -> Mutation:
    return Mutation("x", "x", "x.py", before, "if False:", (TEST,))


def test_a_guard_is_taken_away_where_it_is() -> None:
    assert mutation("if late:").mutate("if late:\n    wait()\n") == "if False:\n    wait()\n"


@pytest.mark.parametrize("source", ["if later:\n", "if late:\nif late:\n"])
def test_a_guard_that_is_not_there_once_is_no_longer_known(source: str) -> None:
    with pytest.raises(Drifted, match="not once"):
        mutation("if late:").mutate(source)


@pytest.mark.parametrize(
    "said",
    ["assert 1 == 2\n +  where", "AssertionError: x", "TimeoutError", "Failed: DID NOT RAISE x"],
)
def test_what_a_test_asserts_or_waits_for_in_vain_is_noticed(said: str) -> None:
    assert unnoticed_by(TEST, {NAME: [said]}) is None
    assert unnoticed_by(TEST, {NAME: [said, "failed on teardown"]}) is None


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
def test_anything_else_is_not(outcomes: Outcomes, why: str) -> None:
    assert (unnoticed_by(TEST, outcomes) or "").startswith(why)
