"""Tests that share a system are run by one worker of pytest-xdist, one after the other."""

import pytest

pytestmark = pytest.mark.xdist_group("groups")


def test_a_group_is_used_when_the_tests_are_distributed(request: pytest.FixtureRequest) -> None:
    by_group = request.config.getoption("loadgroup", default=False)

    # pytest 9.2 with pytest-xdist 3.8 ignores the groups.
    assert request.node.nodeid.endswith("@groups") == by_group
