"""The tables of the notification service."""

from sqlalchemy import Boolean, CheckConstraint, Column, Index, Integer, MetaData, Table, Text, Uuid

from chassis.persistence.tables import NAMING, Moment, add_to

metadata = MetaData(naming_convention=NAMING)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; the other side is told it"),
    Column("rule", Text, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("medium", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("traceparent", Text),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, comment="claims; each mark names the one it is of"),
    Column("next_attempt_at", Moment, comment="when anyone may take it up; null: never again"),
    Column("claimed_at", Moment),
    Column("unsure_since", Moment, comment="begin of the first try that may have arrived"),
    Column("maybe_repeated", Boolean, nullable=False, comment="sent again, not found at a look"),
    Column("last_error", Text),
    Column("message_id", Text, comment="the other side's id of it; Slack calls it ts"),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("sent_at", Moment),
    CheckConstraint("state IN ('pending', 'sending', 'sent', 'failed')", name="state"),
    CheckConstraint(
        "(next_attempt_at IS NOT NULL) = (state IN ('pending', 'sending'))", name="open"
    ),
    Index("deliveries_event_id_rule_key", "event_id", "rule", unique=True),
    Index(None, "correlation_id"),
    Index(None, "state", "id"),
)
Index(
    "deliveries_open_idx",
    deliveries.c.medium,
    deliveries.c.next_attempt_at,
    postgresql_where=deliveries.c.next_attempt_at.is_not(None),
)

pauses = Table(
    "pauses",
    metadata,
    Column("medium", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("began_at", Moment, nullable=False),
    Column("until", Moment, nullable=False),
)

add_to(metadata)
