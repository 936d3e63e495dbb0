"""Every figure, in the order in which they are shown; a module each, with its ``FIGURES``."""

from typing import Final

from benchmarks.figure import Figure
from benchmarks.figures import agent, journey, relay

FIGURES: Final[tuple[Figure, ...]] = (
    *journey.FIGURES,
    *relay.FIGURES,
    *agent.FIGURES,
)
