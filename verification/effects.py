"""The effects that the services' handlers have, stated again: this package imports no service.

A test compares them with the services themselves.
"""

from collections.abc import Mapping
from typing import Final

from contracts.users import UserSignedUpV1
from services import WITH_DATABASE

_DECLARED: Final = {service.name for service in WITH_DATABASE}

SIGN_UP: Final = UserSignedUpV1.event_type

ONBOARDING_TASKS: Final = ("Create your GitHub account", "Review the project documentation")
"""The tasks of everyone who signed up."""

DELIVERY_RULES: Final[Mapping[str, str]] = (
    {"slack-growth-user-signed-up": SIGN_UP} if "notification" in _DECLARED else {}
)
"""The type of event that each rule is about."""

OPENS_ACCOUNTS: Final = "accounts.open-account"
CREATES_TASKS: Final = "users.create-onboarding-tasks"
PLANS_DELIVERIES: Final = "notification.plan-deliveries"
KEEPS_RECORDS: Final = "audit.keep"

AGGREGATES: Final[Mapping[str, tuple[str, str]]] = {
    topic: (service.name, f"SELECT id::text, sequence FROM {table}")  # noqa: S608 - ours
    for service in WITH_DATABASE
    for topic, table in service.aggregates.items()
}
"""For each topic: the service that has each subject's last sequence, and the query for it."""

MAX_STAND_IN_MESSAGES: Final = 50_000
"""The stand-in for Slack keeps the newest ones only."""
