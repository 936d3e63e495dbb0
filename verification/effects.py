"""What the services make of events, told once more: this package knows no service.

A test holds it against the services themselves.
"""

from collections.abc import Mapping
from typing import Final

from contracts.users import UserSignedUpV1

SIGN_UP: Final = UserSignedUpV1.event_type

ONBOARDING_TASKS: Final = ("Create your GitHub account", "Review the project documentation")
"""What everyone who signed up has to do."""

DELIVERY_RULES: Final[Mapping[str, str]] = {"slack-growth-user-signed-up": SIGN_UP}
"""Which type of event each rule is about."""

OPENS_ACCOUNTS: Final = "accounts.open-account"
CREATES_TASKS: Final = "users.create-onboarding-tasks"
PLANS_DELIVERIES: Final = "notification.plan-deliveries"
KEEPS_RECORDS: Final = "audit.keep"

AGGREGATES: Final[Mapping[str, tuple[str, str]]] = {
    "users.user": ("users", "SELECT id::text, sequence FROM users"),
    "users.task": ("users", "SELECT id::text, sequence FROM tasks"),
    "accounts.account": ("accounts", "SELECT id::text, sequence FROM accounts"),
}
"""Whose database tells the last number of each subject of a topic, and how it is asked."""

MOST_STAND_IN_MESSAGES: Final = 50_000
"""The stand-in for Slack forgets older ones."""
