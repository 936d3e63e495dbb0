"""Waits for what has to come, and says so if it does not."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], within_s: float = 30) -> None:
    """Return as soon as ``condition`` holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not come within {within_s} s"
        time.sleep(0.02)
