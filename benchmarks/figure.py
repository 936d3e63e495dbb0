"""What a figure is: one piece of work, the sides that do it, and the goals."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.bench import Bench

Values = Mapping[str, float]
"""What one repeat measured, by the metrics of its figure."""


class Kind(StrEnum):
    """Who does the work."""

    OURS = "ours"
    #: The shortest program of ours that does the same work on the same database and broker.
    FLOOR = "floor"
    #: A product that people would use instead; measured in full runs only.
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a figure."""

    name: str
    unit: str
    what: str = ""
    """What is measured, where name and unit do not show it."""
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """A program that does a figure's work."""

    name: str
    """What ran, with its version if it is not ours."""
    kind: Kind
    run: "Callable[[Bench], Awaitable[Values]]"
    """Does the work once, from its own set-up to its tear-down.

    :raises Unavailable: it can't run on this machine
    """
    does_less: str = ""
    """What it does not do that ours does, or the other way round."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a metric of ours should be, by itself or as a multiple of another side's."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    against: str | None = None
    """The side that the bound is a multiple of; None: the bound is in the metric's own unit."""
    against_metric: str | None = None
    """The other side's metric, if not ``metric``; without ``against``, another metric of ours."""
    or_else: "Goal | None" = None
    """An alternative: one of the two has to be met."""
    side: str | None = None
    """The side of ours that it is about, if there are several; None: the first."""
    only_in_full: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One piece of work, its sides and its goals."""

    name: str
    title: str
    work: str
    """What is done and measured, in a sentence or two, with sizes."""
    metrics: Sequence[Metric]
    sides: Sequence[Side]
    goals: Sequence[Goal]
    needs_services: bool = False
    """Whether it is measured on the running system; else every service is stopped."""
    repeats: int = 3
    full_repeats: int = 3
    only_in_full: bool = False


class Unavailable(Exception):
    """A side can't run here; the results say so, and the run continues without it."""
