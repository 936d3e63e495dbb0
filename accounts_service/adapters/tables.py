"""The service's tables. docs/decisions/0002-ledger-shape.md explains the ledger."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from chassis.persistence import tables as chassis_tables
from chassis.persistence.tables import Moment

PERSONAL = "personal"

metadata = MetaData(naming_convention=chassis_tables.NAMING)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False, comment="personal, or which of the house's accounts"),
    Column("user_id", Uuid, unique=True, comment="the owner of a personal account"),
    Column("currency", Text, nullable=False, comment="ISO 4217"),
    Column("balance", BigInteger, comment="minor units; null: the sum of the entries"),
    Column("last_position", BigInteger, comment="how many entries a personal account has"),
    Column("opened_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False, comment="of the last event published"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("balance >= 0", name="balance"),
    # The house's accounts take part in every transaction. If they had a balance to update, all
    # transactions would wait for one row.
    CheckConstraint(
        f"num_nulls(user_id, balance, last_position)"
        f" = CASE kind WHEN '{PERSONAL}' THEN 0 ELSE 3 END",
        name="kind",
    ),
)
Index(
    "accounts_house_key",
    accounts.c.kind,
    accounts.c.currency,
    unique=True,
    postgresql_where=accounts.c.user_id.is_(None),
)

# The entries of one transaction have one id, and their deltas add up to zero.
ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("transaction_id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey(accounts.c.id), primary_key=True),
    Column("position", BigInteger, comment="1, 2, 3… of a personal account"),
    Column("delta", BigInteger, nullable=False, comment="minor units"),
    Column("balance_after", BigInteger, comment="minor units, of a personal account"),
    Column("description", Text, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    # Also the path to an account's latest entries.
    UniqueConstraint("account_id", "position"),
    CheckConstraint("balance_after >= 0", name="balance_after"),
    CheckConstraint("num_nulls(position, balance_after) <> 1", name="position"),
    CheckConstraint("length(description) BETWEEN 3 AND 255", name="description"),
)

chassis_tables.add_to(metadata)
