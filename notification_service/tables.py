"""The tables of the notification service."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
)

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
_is_open = deliveries.c.next_attempt_at.is_not(None)
Index(
    "deliveries_due_idx",
    deliveries.c.medium,
    deliveries.c.address,
    deliveries.c.next_attempt_at,
    deliveries.c.id,
    postgresql_where=_is_open,
)
# Waits that began in the future, since the clock was set back.
Index(
    "deliveries_waits_idx",
    deliveries.c.medium,
    deliveries.c.updated_at,
    postgresql_where=_is_open,
)
Index("deliveries_finished_idx", deliveries.c.updated_at, postgresql_where=~_is_open)

# What is left of a delivery that was purged, so that its event never leads to another.
purged_deliveries = Table(
    "purged_deliveries",
    metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("rule", Text, primary_key=True),
    Column("id", Uuid, nullable=False, comment="of the delivery"),
)

pauses = Table(
    "pauses",
    metadata,
    Column("medium", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("began_at", Moment, nullable=False),
    Column("until", Moment, nullable=False),
)

# One for each user: the lock under which the user's events are numbered.
streams = Table(
    "streams",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("epoch", BigInteger, nullable=False, comment="ms since 1970 when the numbers began"),
    Column("last_number", BigInteger, nullable=False),
)

stream_events = Table(
    "stream_events",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("number", BigInteger, primary_key=True, comment="without a gap, until it is purged"),
    Column("event_id", Uuid, nullable=False),
    Column("data", Text, nullable=False, comment="JSON, as the browser gets it"),
    Column("stored_at", Moment, nullable=False),
    Index(None, "stored_at"),
)

add_to(metadata)
