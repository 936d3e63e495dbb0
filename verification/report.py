"""What was checked, how many were looked at, and what is not as it has to be."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

MOST_EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What whoever asks knows beside what is in the system.

    :param users: ids of users whose sign-up was answered 2xx
    :param parked: parked events, rows set aside and failed deliveries are as they should be
    :param unreadable: how many records on the topics may be no events of ours
    :param made_up: subjects that a test published events of by itself; whatever is odd about
        them is explained
    """

    users: frozenset[UUID] = frozenset()
    parked: bool = False
    unreadable: int = 0
    made_up: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Violation:
    """One case of a broken invariant: of which subject, and what is wrong."""

    subject: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One invariant: how many of what were looked at, and what breaks it.

    ``violated`` is the total, of which ``violations`` are the first 20. What is ``explained``
    (it is parked, set aside, or expected) breaks nothing.
    """

    name: str
    sentence: str
    looked_at: Mapping[str, int]
    violated: int
    explained: int
    violations: tuple[Violation, ...]
    left_out_because: str | None = None

    @classmethod
    def left_out(cls, name: str, sentence: str, because: str) -> "Check":
        """Return a check that was not made."""
        return cls(
            name=name,
            sentence=sentence,
            looked_at={},
            violated=0,
            explained=0,
            violations=(),
            left_out_because=because,
        )

    @property
    def holds(self) -> bool:
        return not self.violated


@dataclass(frozen=True, slots=True)
class Report:
    """Every invariant, and what was found."""

    checks: tuple[Check, ...]
    took_s: float

    @property
    def holds(self) -> bool:
        """Whether nothing is broken."""
        return all(check.holds for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        """Return a check by its name."""
        return next(check for check in self.checks if check.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"holds": self.holds} | asdict(self)

    def broken(self) -> str:
        """Say in lines what is broken, for an assertion's message; empty when nothing is."""
        return "\n".join(
            f"{check.name}: {each.subject}: {each.said}"
            for check in self.checks
            for each in check.violations
        )
