"""Every figure, in the order in which they are shown; a module each, with its ``FIGURES``."""

from typing import Final

from benchmarks.figure import Figure
from benchmarks.figures import (
    agent,
    audit,
    growth,
    http,
    idle,
    journey,
    opening,
    reading,
    recovery,
    relay,
    replay,
    size,
    transfers,
    workers,
)

FIGURES: Final[tuple[Figure, ...]] = (
    *journey.FIGURES,
    *relay.FIGURES,
    *agent.FIGURES,
    *audit.FIGURES,
    *opening.FIGURES,
    *replay.FIGURES,
    *http.FIGURES,
    *transfers.FIGURES,
    *reading.FIGURES,
    *workers.FIGURES,
    *idle.FIGURES,
    *growth.FIGURES,
    *recovery.FIGURES,
    *size.FIGURES,
)
