"""Every figure, in the order in which they are shown; a module each, with its ``FIGURES``."""

from typing import Final

from benchmarks.figure import Figure

FIGURES: Final[tuple[Figure, ...]] = ()
