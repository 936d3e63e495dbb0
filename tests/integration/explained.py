"""What a statement reads, as EXPLAIN (ANALYZE, BUFFERS) tells it: counts, never the clock."""

from collections.abc import Sequence


def pages_read(plan: Sequence[str]) -> int:
    """Return how many pages a statement reads, in shared buffers or not, by its plan's lines."""
    of_all = next(line for line in plan if line.lstrip().startswith("Buffers:"))
    numbers = dict(each.split("=") for each in of_all.split() if "=" in each)
    return int(numbers.get("hit", 0)) + int(numbers.get("read", 0))
