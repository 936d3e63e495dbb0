"""What every fault test may ask for."""

import os
from pathlib import Path

import pytest

from tests.faults.harness import OUTAGE_VARIABLE, SHORT_OUTAGE_S


@pytest.fixture(scope="session")
def outage_s() -> float:
    """How long something stays away, in seconds: ``FAULTS_OUTAGE_S``, or else a short time."""
    return float(os.environ.get(OUTAGE_VARIABLE, SHORT_OUTAGE_S))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bear with connections that aiokafka forgets when a broker dies amid its client's start.

    They are those of the tests' own observers, and come to light in whichever test runs then.
    """
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
