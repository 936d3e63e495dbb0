"""What every fault test may ask for."""

import os

import pytest

from tests.faults.harness import OUTAGE_VARIABLE, SHORT_OUTAGE_S


@pytest.fixture(scope="session")
def outage_s() -> float:
    """How long something stays away, in seconds: ``FAULTS_OUTAGE_S``, or else a short time."""
    return float(os.environ.get(OUTAGE_VARIABLE, SHORT_OUTAGE_S))
