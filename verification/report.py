"""The report: what was checked, how many rows were looked at, and what is broken."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

MAX_EXAMPLES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the caller knows that is not in the system.

    :param users: ids of users whose sign-up was answered 2xx
    :param parked: parked events, rows set aside and failed deliveries are expected
    :param unreadable: how many records on the topics may be something else than events of ours
    :param made_up: subjects of events that a test published itself; every violation of them is
        explained
    """

    users: frozenset[UUID] = frozenset()
    parked: bool = False
    unreadable: int = 0
    made_up: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Violation:
    """One case of a broken invariant."""

    subject: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One invariant: how many rows were looked at, and what breaks it.

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
        return {"holds": self.holds} | asdict(self, dict_factory=_json_fields)

    def broken(self) -> str:
        """Return a line for each violation, for an assertion's message."""
        return "\n".join(
            f"{check.name}: {each.subject}: {each.problem}"
            for check in self.checks
            for each in check.violations
        )


def _json_fields(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # In JSON a violation's problem is the field "said".
    return {"said" if name == "problem" else name: value for name, value in fields}
