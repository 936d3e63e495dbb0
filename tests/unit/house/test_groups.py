"""Tests that share a system are run by one worker, one after the other."""

import pytest

pytestmark = pytest.mark.xdist_group("groups")


def test_a_group_is_known_to_those_who_share_out_the_tests(request: pytest.FixtureRequest) -> None:
    by_group = request.config.getoption("loadgroup", default=False)

    # pytest 9.2 with pytest-xdist 3.8 shares them out as if there were no groups.
    assert request.node.nodeid.endswith("@groups") == by_group
