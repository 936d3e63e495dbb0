"""What a figure is: work done by us, by its floor and by peers, and what we aim at."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.bench import Bench

Values = Mapping[str, float]
"""What one repeat came to, by the metrics of its figure."""


class Kind(StrEnum):
    """Who does the work."""

    OURS = "ours"
    #: The shortest honest program that does the same on the same database and broker.
    FLOOR = "floor"
    #: What people would use otherwise; measured in full runs only.
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a figure."""

    name: str
    unit: str
    what: str = ""
    """What it is, where name and unit do not say it."""
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that do a figure's work."""

    name: str
    """What ran, with its version if it is not ours."""
    kind: Kind
    run: "Callable[[Bench], Awaitable[Values]]"
    """Does the work once, from its own set-up to its tear-down.

    :raises Unavailable: it can't be had on this machine
    """
    does_less: str = ""
    """What it does not do that we do, or the other way round: for whoever compares."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a metric of ours is to be, by itself or as a multiple of another side's."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    against: str | None = None
    """The side that the bound is a multiple of; None: the bound is in the metric's own unit."""
    against_metric: str | None = None
    """Where it is another metric than ``metric``; with no ``against``, another one of ours."""
    or_else: "Goal | None" = None
    """Another way to meet it: one of the two is enough."""
    side: str | None = None
    """Whose metric it is, where the figure has several sides of ours; None: the first."""
    only_in_full: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One piece of work, its sides and its goals."""

    name: str
    title: str
    work: str
    """What is done and counted, in a sentence or two, with sizes."""
    metrics: Sequence[Metric]
    sides: Sequence[Side]
    goals: Sequence[Goal]
    needs_services: bool = False
    """Whether it is measured on the running system; else every service is stopped."""
    repeats: int = 3
    full_repeats: int = 3
    only_in_full: bool = False


class Unavailable(Exception):
    """A side can't be had here; the run says so and goes on without it."""
