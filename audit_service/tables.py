"""The records: what Kafka delivered, byte for byte, and what the service found out about it.

Rows of ``records`` and of ``record_numbers`` are only added.
"""

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from chassis.persistence import tables as chassis_tables
from chassis.persistence.tables import NAMING, Moment

metadata = MetaData(naming_convention=NAMING)

records = Table(
    "records",
    metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("key", LargeBinary),
    # JSON and not JSONB, which refuses a name with a NUL in it.
    Column("headers", JSON, nullable=False, comment="[name, base64 or null] pairs, in order"),
    Column("payload", LargeBinary, comment="the bytes as they came; null for a tombstone"),
    Column("sha256", LargeBinary, nullable=False, comment="of the payload"),
    Column("recorded_at", Moment, nullable=False),
    Column("invalid_reason", Text, comment="why it is no event of ours; null for one that is"),
    Column("event_id", Uuid),
    Column("source", Text),
    Column("type", Text),
    Column("subject", Text),
    Column(
        "occurred_at",
        Moment,
        nullable=False,
        comment="the event's time; recorded_at of what is no event",
    ),
    Column("sequence", BigInteger),
    Column("correlation_id", Text),
    Column("causation_id", Text),
    Column("traceparent", Text),
    Column("verdict", Text, comment="what its sequence says: next, after-gap, late, …"),
    Column(
        "altered", Boolean, nullable=False, comment="its source and id were seen with other bytes"
    ),
    Column(
        "client_correlation_id",
        Text,
        comment="what a client calls the request that published it; nobody has verified it",
    ),
    UniqueConstraint("event_id", "source", "sha256"),
    # A record that is no event has no id. A repeat of it has the same Kafka position.
    Index(
        "records_place_key",
        "topic",
        "partition",
        "offset",
        "sha256",
        unique=True,
        postgresql_where=text("event_id IS NULL"),
    ),
    # For the filters of the search, in the order of the search.
    Index(None, "occurred_at", "position"),
    Index(None, "subject", "occurred_at", "position"),
    Index(None, "correlation_id", "occurred_at", "position"),
    # Few records have one.
    Index(
        None,
        "client_correlation_id",
        "occurred_at",
        "position",
        postgresql_where=text("client_correlation_id IS NOT NULL"),
    ),
    # Of type, topic and source there are few combinations; what is no event has neither type nor
    # source.
    Index(
        "records_kind_idx",
        text("coalesce(type, '')"),
        "topic",
        text("coalesce(source, '')"),
        "occurred_at",
        "position",
    ),
)

# Apart from the records, which are never changed: a number is given after its record has committed.
record_numbers = Table(
    "record_numbers",
    metadata,
    Column(
        "number", BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3 and so on"
    ),
    Column("position", BigInteger, nullable=False, unique=True),
)

numbering = Table(
    "numbering",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column(
        "numbered_to",
        BigInteger,
        nullable=False,
        comment="each record up to this position has its number, and none appears there any more",
    ),
    Column("seen_to", BigInteger, nullable=False, comment="was the highest position at a moment"),
    Column(
        "writers",
        ARRAY(Text),
        nullable=False,
        comment="the virtual transactions that were adding records at that moment",
    ),
    CheckConstraint("only_row", name="only_row"),
)

chassis_tables.add_to(metadata)
