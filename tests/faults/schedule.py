"""Which faults a random run injects, and when: computed from the seed only."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from verification.addresses import SERVICES as WITH_DATABASE

_SERVICES: Final = (*WITH_DATABASE, "gateway")
_INFRASTRUCTURE: Final = ("kafka", "postgres")

MINUTE_S: Final = 60.0
# Each minute has many faults, then a pause in which every process recovers, then a single fault.
MANY_FAULTS_S: Final = 38.0
SINGLE_FAULT_AT_S: Final = 48.0
_KILLS_AMONG_MANY: Final = 14
_FREEZES_AMONG_MANY: Final = 2
_LONGEST_FREEZE_S: Final = 9.0
# The numbers of workers that are added among many faults, and of the one in a single fault.
_ADDED, _ADDED_FOR_SINGLE_FAULT = 2, 3


class Kind(StrEnum):
    KILL = "kill"
    """SIGKILL; the supervisor starts it again."""
    TERM = "term"
    """SIGTERM; the supervisor starts it again."""
    FREEZE = "freeze"
    """SIGSTOP, and later SIGCONT."""
    JOIN = "join"
    """One more worker of a service."""
    LEAVE = "leave"
    """The added worker is stopped by SIGTERM, and not started again."""
    DIE = "die"
    """The added worker is killed, and not started again."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A fault of a process at a second of the run; ``alone``: no other fault within 10 s."""

    at_s: float
    kind: Kind
    who: str
    for_s: float = 0.0
    alone: bool = False

    def __str__(self) -> str:
        lasting = f" for {self.for_s:.1f} s" if self.for_s else ""
        return f"{self.at_s:7.1f} s  {self.kind} {self.who}{lasting}"


def schedule(seed: int, minutes: float) -> list[Fault]:
    """Return the faults of a run in their order."""
    rng = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
    faults: list[Fault] = []
    for minute in range(math.ceil(minutes)):
        begins = minute * MINUTE_S
        faults += [*_many_faults(rng, begins), *_single_fault(rng, minute, begins)]
    return sorted(each for each in faults if each.at_s < minutes * MINUTE_S)


def _many_faults(rng: random.Random, begins: float) -> Iterator[Fault]:
    width = MANY_FAULTS_S / _KILLS_AMONG_MANY
    for slot in range(_KILLS_AMONG_MANY):
        kind = Kind.KILL if rng.random() < 0.85 else Kind.TERM
        # Each of the infrastructure is hit less often than a service.
        chances = [4] * len(_SERVICES) + [1] * len(_INFRASTRUCTURE)
        (who,) = rng.choices((*_SERVICES, *_INFRASTRUCTURE), chances)
        yield Fault(begins + width * (slot + rng.random()), kind, who)
    for _ in range(_FREEZES_AMONG_MANY):
        for_s = rng.uniform(1.0, _LONGEST_FREEZE_S)
        at_s = begins + rng.uniform(0, MANY_FAULTS_S - for_s)
        yield Fault(at_s, Kind.FREEZE, rng.choice(_SERVICES), for_s)
    # Two services, so that none has two added workers at once.
    for service in rng.sample(WITH_DATABASE, 2):
        joins = rng.uniform(0, MANY_FAULTS_S / 2)
        added = f"{service}-{_ADDED}"
        yield Fault(begins + joins, Kind.JOIN, added)
        kind = rng.choice((Kind.LEAVE, Kind.DIE))
        yield Fault(begins + rng.uniform(joins + 5.0, MANY_FAULTS_S), kind, added)


def _single_fault(rng: random.Random, minute: int, begins: float) -> Iterator[Fault]:
    """One worker dies: in turn one that is started again and one that is not."""
    service = rng.choice(WITH_DATABASE)
    if minute % 2 == 0:
        yield Fault(begins + SINGLE_FAULT_AT_S, Kind.KILL, service, alone=True)
    else:
        added = f"{service}-{_ADDED_FOR_SINGLE_FAULT}"
        yield Fault(begins + MANY_FAULTS_S, Kind.JOIN, added)
        yield Fault(begins + SINGLE_FAULT_AT_S, Kind.DIE, added, alone=True)
