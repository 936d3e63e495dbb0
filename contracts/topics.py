"""The one catalogue: every topic, who may write to it, who reads it, and what is in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from contracts.accounts import (
    AccountClosedV1,
    AccountFrozenV1,
    AccountOpenedV1,
    AccountsEventWithheldV1,
    AccountUnfrozenV1,
    HoldCapturedV1,
    HoldExpiredV1,
    HoldPlacedV1,
    HoldReleasedV1,
    TransactionCreatedV1,
    TransferReversedV1,
)
from contracts.events import IntegrationEvent
from contracts.operations import ACTS, DataReadV1, DeliveryRetriedV1
from contracts.users import TaskCreatedV1, UsersEventWithheldV1, UserSignedUpV1


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One aggregate type's events. The numbers are what production asks for."""

    name: str
    key: str
    """What the record key, the envelope's subject, identifies."""
    owner: str
    """The only service that publishes here."""
    consumers: tuple[str, ...]
    events: tuple[type[IntegrationEvent], ...]
    partitions: int = 8
    replication_factor: int = 3
    min_insync_replicas: int = 2
    retention_ms: int | None = None
    """None keeps every record for ever."""
    max_message_bytes: int = 1_048_576

    @property
    def subject_field(self) -> str:
        """Return the field of an event's data that has the subject too, where it has one."""
        return self.key.replace(" ", "_")


USERS_USER = Topic(
    name="users.user",
    key="user id",
    owner="users",
    consumers=("accounts", "audit", "notification", "users"),
    events=(UserSignedUpV1, UsersEventWithheldV1),
)

USERS_TASK = Topic(
    name="users.task",
    key="task id",
    owner="users",
    consumers=("audit",),
    events=(TaskCreatedV1, UsersEventWithheldV1),
)

ACCOUNTS_ACCOUNT = Topic(
    name="accounts.account",
    key="account id",
    owner="accounts",
    consumers=("audit", "notification"),
    events=(
        AccountOpenedV1,
        TransactionCreatedV1,
        TransferReversedV1,
        HoldPlacedV1,
        HoldCapturedV1,
        HoldReleasedV1,
        HoldExpiredV1,
        AccountFrozenV1,
        AccountUnfrozenV1,
        AccountClosedV1,
        AccountsEventWithheldV1,
    ),
)


def _operations(owner: str, *more: type[IntegrationEvent]) -> Topic:
    return Topic(
        name=f"{owner}.operations",
        # Or of the operator who read; what is published of a topic keeps its words.
        key="id of what was acted on",
        owner=owner,
        consumers=("audit",),
        events=(*ACTS, DataReadV1, *more),
        # Operators act and read rarely.
        partitions=1,
    )


USERS_OPERATIONS = _operations("users")
ACCOUNTS_OPERATIONS = _operations("accounts")
AUDIT_OPERATIONS = _operations("audit")
NOTIFICATION_OPERATIONS = _operations("notification", DeliveryRetriedV1)

TOPICS: tuple[Topic, ...] = (
    USERS_USER,
    USERS_TASK,
    ACCOUNTS_ACCOUNT,
    USERS_OPERATIONS,
    ACCOUNTS_OPERATIONS,
    AUDIT_OPERATIONS,
    NOTIFICATION_OPERATIONS,
)

EVENTS: Mapping[str, type[IntegrationEvent]] = MappingProxyType(
    {event.event_type: event for topic in TOPICS for event in topic.events}
)
"""Every event type by its name."""
