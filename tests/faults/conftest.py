"""What every fault test may ask for."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import OUTAGE_VARIABLE, SHORT_OUTAGE_S, System, running_system


@pytest.fixture(scope="module")
def system(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[System]:
    """One system for all tests of a module: each finds it as those before have left it."""
    name = request.module.__name__.rpartition(".")[2]
    with running_system(tmp_path_factory.mktemp(name)) as system:
        yield system


@pytest.fixture(scope="session")
def outage_s() -> float:
    """How long an outage lasts, in seconds: ``FAULTS_OUTAGE_S``, or else a short time."""
    return float(os.environ.get(OUTAGE_VARIABLE, SHORT_OUTAGE_S))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore connections that aiokafka leaks when a broker dies while a client starts.

    They belong to the tests' own observers, and are reported in whichever test runs then.
    """
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
