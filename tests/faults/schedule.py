"""Which faults a random run makes, and when: made from the seed alone."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WORKERS: Final = ("users", "accounts", "audit", "notification")
_SERVICES: Final = (*WORKERS, "gateway")
_INFRASTRUCTURE: Final = ("kafka", "postgres")

MINUTE_S: Final = 60.0
# Each minute is a storm, a calm in which everybody comes back, and one fault by itself.
STORM_S: Final = 38.0
ALONE_AT_S: Final = 48.0
_KILLS_IN_A_STORM: Final = 14
_FREEZES_IN_A_STORM: Final = 2
_LONGEST_FREEZE_S: Final = 9.0
# The workers that come and go in a storm, and the one that dies in the calm for good.
_GUEST, _LAST_GUEST = 2, 3


class Kind(StrEnum):
    KILL = "kill"
    """SIGKILL; the supervisor starts it again."""
    TERM = "term"
    """Asked to end in good order; the supervisor starts it again."""
    FREEZE = "freeze"
    """SIGSTOP, and later SIGCONT."""
    JOIN = "join"
    """One more worker of a service."""
    LEAVE = "leave"
    """It ends in good order, and for good."""
    DIE = "die"
    """It is killed, and for good."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What happens to whom, at which second of the run; ``alone``: nothing else for 10 s around."""

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
    rng = random.Random(seed)  # noqa: S311 - it is to come again, not to be secret
    faults: list[Fault] = []
    for minute in range(math.ceil(minutes)):
        begins = minute * MINUTE_S
        faults += [*_storm(rng, begins), *_alone(rng, minute, begins)]
    return sorted(each for each in faults if each.at_s < minutes * MINUTE_S)


def _storm(rng: random.Random, begins: float) -> Iterator[Fault]:
    width = STORM_S / _KILLS_IN_A_STORM
    for slot in range(_KILLS_IN_A_STORM):
        kind = Kind.KILL if rng.random() < 0.85 else Kind.TERM
        # Every other minute one of them, and the other one in the next.
        chances = [4] * len(_SERVICES) + [1] * len(_INFRASTRUCTURE)
        (who,) = rng.choices((*_SERVICES, *_INFRASTRUCTURE), chances)
        yield Fault(begins + width * (slot + rng.random()), kind, who)
    for _ in range(_FREEZES_IN_A_STORM):
        for_s = rng.uniform(1.0, _LONGEST_FREEZE_S)
        at_s = begins + rng.uniform(0, STORM_S - for_s)
        yield Fault(at_s, Kind.FREEZE, rng.choice(_SERVICES), for_s)
    # Two services, so that none has two guests at once.
    for service in rng.sample(WORKERS, 2):
        joins = rng.uniform(0, STORM_S / 2)
        guest = f"{service}-{_GUEST}"
        yield Fault(begins + joins, Kind.JOIN, guest)
        kind = rng.choice((Kind.LEAVE, Kind.DIE))
        yield Fault(begins + rng.uniform(joins + 5.0, STORM_S), kind, guest)


def _alone(rng: random.Random, minute: int, begins: float) -> Iterator[Fault]:
    """One worker dies amid calm: now one that comes back, now one that does not."""
    service = rng.choice(WORKERS)
    if minute % 2 == 0:
        yield Fault(begins + ALONE_AT_S, Kind.KILL, service, alone=True)
    else:
        guest = f"{service}-{_LAST_GUEST}"
        yield Fault(begins + STORM_S, Kind.JOIN, guest)
        yield Fault(begins + ALONE_AT_S, Kind.DIE, guest, alone=True)
