"""The tables that every service has beside its own: the outbox, and those of its consumers."""

from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

NAMING = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}

metadata = MetaData(naming_convention=NAMING)

Moment = DateTime(timezone=True)

UNKNOWN_TOPIC_ID = UUID(int=0)
_TOPIC_ID = "Kafka's id of the topic; all zeros: not known"

# `id, aggregatetype, aggregateid, type, payload` are as Debezium's outbox event router expects
# them, so that it can stand in for the relay.
outbox = Table(
    "outbox",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("aggregatetype", Text, nullable=False, comment="the topic's name"),
    Column("aggregateid", Text, nullable=False, comment="the key, and the event's subject"),
    Column("type", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="the exact bytes for Kafka"),
    Column("headers", JSONB, nullable=False, comment="Kafka headers, name to text"),
    Column("created_at", Moment, nullable=False),
    # Where a topic is suspended, the relay reads the others topic by topic.
    Index(None, "aggregatetype", "position"),
)

outbox_set_aside = Table(
    "outbox_set_aside",
    metadata,
    *(Column(c.name, c.type, primary_key=c.primary_key, nullable=False) for c in outbox.columns),
    Column("error_code", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("set_aside_at", Moment, nullable=False),
    Column("original_payload", LargeBinary, comment="null: it was not edited"),
    # The later rows of its aggregate stay in the outbox, and wait behind it.
    Index(None, "aggregatetype", "aggregateid"),
)
outbox_set_aside.c.position.autoincrement = False

progress = Table(
    "progress",
    metadata,
    Column("subscriber", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False, comment="everything before it is done"),
    Column("updated_at", Moment, nullable=False),
    Column("paused_at", Moment, comment="null: it is not; an operator resumes it"),
    Column("topic_id", Uuid, nullable=False, default=UNKNOWN_TOPIC_ID, comment=_TOPIC_ID),
    Column("held_because", Text, comment="null: it is not; an operator ends a hold"),
    Column("held_at", Moment),
)

inbox = Table(
    "inbox",
    metadata,
    Column("subscriber", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("last_sequence", BigInteger, nullable=False, comment="0: none yet"),
    Column("greatest_event_id", Uuid, nullable=False),
    Column(
        "handled_sequences",
        ARRAY(BigInteger),
        comment="of handled facts of which another version is still to come; null: none",
    ),
)

inbox_missing = Table(
    "inbox_missing",
    metadata,
    Column("subscriber", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, comment="the first that is missing"),
    Column("last_sequence", BigInteger, nullable=False, comment="all up to it are missing"),
    Column("noticed_at", Moment, nullable=False),
)

# One row for each event or chunk that a worker began, and may have died before finishing.
tries = Table(
    "tries",
    metadata,
    Column("subscriber", Text, primary_key=True, comment="empty: a chunk, by all of them"),
    Column("topic", Text, primary_key=True),
    Column("topic_id", Uuid, primary_key=True, default=UNKNOWN_TOPIC_ID, comment=_TOPIC_ID),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
)

parked = Table(
    "parked",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("subscriber", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("topic_id", Uuid, nullable=False, default=UNKNOWN_TOPIC_ID, comment=_TOPIC_ID),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", LargeBinary),
    Column("payload", LargeBinary, comment="the bytes as they came; null for a tombstone"),
    # Not JSONB, which refuses a NUL: the name of a header can be any text too.
    Column("headers", JSON, nullable=False, comment="[name, base64] pairs, in order"),
    Column("subject", Text, comment="null where the bytes do not tell: it then blocks nobody"),
    Column("sequence", BigInteger),
    Column("event_id", Uuid),
    Column("type", Text),
    Column("reason", Text, nullable=False),
    Column("error_code", Text, nullable=False),
    Column("error_message", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("first_tried_at", Moment, nullable=False),
    Column("last_tried_at", Moment, nullable=False),
    Column("edited_payload", LargeBinary, comment="what is handled instead; null: as it came"),
    Index(
        "parked_place_key",
        "subscriber",
        "topic",
        "topic_id",
        "partition",
        "offset",
        unique=True,
    ),
    Index("parked_subject_idx", "subscriber", "topic", "subject", "sequence"),
)

# Where an operator lets a consumer park more aggregates than the dead-letter limit allows.
park_allowances = Table(
    "park_allowances",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("below_offset", BigInteger, nullable=False, comment="records before it may park"),
    Column("allowed_at", Moment, nullable=False),
)

# What is to be done when a time has come. A row is written once, and deleted when it is done.
timers = Table(
    "timers",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7"),
    Column("subject", Uuid, nullable=False, comment="its aggregate's id; of none: its own"),
    Column("kind", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("correlation_id", Text, nullable=False),
    Column("causation_id", Text, comment="the event that led to it; null: none did"),
    Column("traceparent", Text),
    Index(None, "subject", "due_at", "id"),
)

# One row for each aggregate that has timers: its first one, and the attempts at it. Workers read
# only this table, so what waits behind a first timer costs them nothing.
next_timers = Table(
    "next_timers",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("timer_id", Uuid, nullable=False),
    Column("next_at", Moment, comment="when a worker may claim it; null: it is parked"),
    Column("claims", BigInteger, nullable=False, comment="identifies a claim"),
    Column("begun", Boolean, nullable=False, comment="an attempt began, and has not ended"),
    Column("tries", Integer, nullable=False, comment="attempts that count against it"),
    Column("failures", Integer, nullable=False, comment="failed attempts of any kind"),
    Column("first_tried_at", Moment),
    Column("last_tried_at", Moment),
    Column("error_code", Text, comment="of the last attempt that failed"),
    Column("error_message", Text),
    Column("parked_at", Moment),
    CheckConstraint("(next_at IS NULL) = (parked_at IS NOT NULL)", name="parked"),
)
Index(
    "next_timers_due_idx",
    next_timers.c.next_at,
    next_timers.c.subject,
    postgresql_where=~next_timers.c.begun,
)
Index(
    "next_timers_begun_idx",
    next_timers.c.next_at,
    next_timers.c.subject,
    postgresql_where=next_timers.c.begun,
)
Index(
    "next_timers_failed_idx",
    next_timers.c.timer_id,
    postgresql_where=next_timers.c.error_code.is_not(None),
)

# Batches that could not be read, and that an operator had the consumer pass over.
skipped_batches = Table(
    "skipped_batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("topic_id", Uuid, nullable=False, comment=_TOPIC_ID),
    Column("partition", Integer, nullable=False),
    Column("begin_offset", BigInteger, nullable=False),
    Column("end_offset", BigInteger, nullable=False, comment="the next that is read"),
    Column("raw", LargeBinary, comment="null: the broker did not give the bytes"),
    Column("skipped_at", Moment, nullable=False),
)

# One row for each subject that an operator acted on.
operated = Table(
    "operated",
    metadata,
    Column("subject", Uuid, primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
)

# What operators put in the place of events, where it is too large for the event about the act.
edited_payloads = Table(
    "edited_payloads",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; the event about the act has it"),
    Column("payload", LargeBinary, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal", Text, primary_key=True, comment="empty: nobody"),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hmac", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index(None, "created_at"),
)


def add_to(service: MetaData) -> MetaData:
    """Copy these tables into a service's metadata, so that Alembic compares the whole schema."""
    for table in metadata.sorted_tables:
        table.to_metadata(service)
    return service
