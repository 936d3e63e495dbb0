"""Connections that outlive the event loop of a test."""

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def connections_of_an_ended_loop() -> Iterator[None]:
    """Remove the connections that aiokafka began to close when their event loop ended.

    It does not wait for the end of those with which it bootstraps, fails to sign in, or finds a
    broker dead; over TLS that takes longer than a short command. Where a module imports this, it
    holds for all tests of the module.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
