"""What a test measured against its bound: pytest shows it of failed tests, and of all with -rP."""

import statistics
from collections.abc import Sequence


def report(
    what: str, measured: Sequence[float], *, bound: float | None = None, unit: str = "s"
) -> None:
    """Say how what was measured is spread, and how much it may be."""
    middle, most = statistics.median(measured), max(measured)
    print(  # noqa: T201 - for those who run it
        f"{what}: median {middle:.2f} {unit}, most {most:.2f} {unit} of {len(measured)}"
        + ("" if bound is None else f", at most {bound:g} {unit}")
    )
