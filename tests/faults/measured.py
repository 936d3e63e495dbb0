"""Prints measurements and bounds: pytest shows those of failed tests, with -rP of all."""

import statistics
from collections.abc import Sequence


def print_measured(
    what: str, measured: Sequence[float], *, bound: float | None = None, unit: str = "s"
) -> None:
    """Print the median and the maximum of a measurement, and its bound."""
    median, most = statistics.median(measured), max(measured)
    print(  # noqa: T201 - for the reader of the test run
        f"{what}: median {median:.2f} {unit}, most {most:.2f} {unit} of {len(measured)}"
        + ("" if bound is None else f", at most {bound:g} {unit}")
    )
