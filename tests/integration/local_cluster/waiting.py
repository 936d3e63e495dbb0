"""Waits for a condition, and fails if it does not hold in time."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], within_s: float = 60) -> None:
    """Return as soon as ``condition`` holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)
