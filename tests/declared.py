"""Which of the example's processes there are: a copy of the repository may have fewer."""

from typing import Final, Literal

import pytest

from local_cluster.testing import RunningCluster
from services import SERVICES

_NAMES: Final = {"kafka", "postgres", *(service.name for service in SERVICES)}


def declared(*names: str) -> tuple[str, ...]:
    """Return those of these processes that the local cluster has."""
    return tuple(name for name in names if name in _NAMES)


def needs(name: Literal["notification", "slack-stand-in"]) -> pytest.MarkDecorator:
    """Return a mark for tests that are none in a copy without this process."""
    return pytest.mark.needs(name)


def slack_of(cluster: RunningCluster) -> str | None:
    """Return the address of the stand-in for Slack, or None in a copy without it."""
    return cluster.url("slack-stand-in") if declared("slack-stand-in") else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(process): it is none where that is not declared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [
        item for item in items if all(declared(*mark.args) for mark in item.iter_markers("needs"))
    ]
