"""Runs the queries of every invariant on the evidence."""

from typing import Final

from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from verification import effects
from verification.evidence import Evidence
from verification.invariants import INVARIANTS, Invariant
from verification.report import MAX_EXAMPLES, Check, Expected, Violation

_PARAMETERS: Final = {
    "opens_accounts": effects.OPENS_ACCOUNTS,
    "creates_tasks": effects.CREATES_TASKS,
    "plans_deliveries": effects.PLANS_DELIVERIES,
    "keeps_records": effects.KEEPS_RECORDS,
    "most_messages": effects.MAX_STAND_IN_MESSAGES,
    "unknown_topic_id": str(UNKNOWN_TOPIC_ID),
}


def check_all(evidence: Evidence, expected: Expected) -> tuple[Check, ...]:
    """Complete the evidence, and check every invariant on it."""
    evidence.add("expected_users", ((str(each),) for each in expected.users))
    evidence.add("made_up", ((each,) for each in expected.made_up))
    evidence.complete()
    return tuple(_check(each, evidence, expected) for each in INVARIANTS)


def _check(invariant: Invariant, evidence: Evidence, expected: Expected) -> Check:
    if invariant.needs_messages and not evidence.has_messages:
        return Check.left_out(invariant.name, invariant.sentence, "no VERIFY_SLACK_STAND_IN_URL")
    parameters = _PARAMETERS | {"parked": expected.parked, "unreadable": expected.unreadable}
    violated = explained = 0
    examples: list[Violation] = []
    for query in invariant.broken_by:
        # The query itself does not name its columns.
        named = f"WITH found (subject, problem, explained) AS ({query}) {_MADE_UP_IS_EXPLAINED}"
        for subject, problem, is_explained in evidence.query(named, parameters):
            if is_explained:
                explained += 1
                continue
            violated += 1
            if len(examples) < MAX_EXAMPLES:
                examples.append(Violation(subject, problem))
    return Check(
        name=invariant.name,
        sentence=invariant.sentence,
        looked_at={
            what: next(evidence.query(count))[0] for what, count in invariant.looked_at.items()
        },
        violated=violated,
        explained=explained,
        violations=tuple(examples),
    )


_MADE_UP_IS_EXPLAINED: Final = (
    "SELECT subject, problem, explained OR subject IN (SELECT subject FROM made_up) FROM found"
)
