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
    func,
    literal_column,
)

from chassis.persistence import tables as chassis_tables
from chassis.persistence.tables import Moment

PERSONAL = "personal"
CASH = "cash"

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
    Column("held", BigInteger, nullable=False, server_default="0", comment="by open holds"),
    Column("next_expiry", Moment, comment="of the first of them to expire; null: none"),
    Column(
        "moved_at",
        Moment,
        nullable=False,
        server_default=func.now(),
        comment="no later entry has an earlier time",
    ),
    Column("state", Text, nullable=False, server_default="open", comment="open, frozen or closed"),
    Column("version", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False, comment="of the last event published"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("balance >= 0", name="balance"),
    CheckConstraint("held BETWEEN 0 AND balance", name="held"),
    CheckConstraint("(held > 0) = (next_expiry IS NOT NULL)", name="next_expiry"),
    CheckConstraint("state IN ('open', 'frozen', 'closed')", name="state"),
    CheckConstraint("state <> 'closed' OR balance = 0", name="closed"),
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

# The entries of one transaction have one id and one currency, and their deltas add up to zero: a
# trigger holds this. Others refuse to change or delete an entry.
ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("transaction_id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey(accounts.c.id), primary_key=True),
    Column("position", BigInteger, comment="1, 2, 3… of a personal account"),
    Column("kind", Text, nullable=False, server_default="opening", comment="why money moved"),
    Column("delta", BigInteger, nullable=False, comment="minor units"),
    Column("balance_after", BigInteger, comment="minor units, of a personal account"),
    Column("description", Text, nullable=False),
    Column("occurred_at", Moment, nullable=False),
    # Also the path to an account's latest entries.
    UniqueConstraint("account_id", "position"),
    CheckConstraint("balance_after >= 0", name="balance_after"),
    CheckConstraint("num_nulls(position, balance_after) <> 1", name="position"),
    CheckConstraint("length(description) BETWEEN 3 AND 255", name="description"),
    CheckConstraint("(delta = 0) = (kind = 'opening')", name="delta"),
)
# Of personal accounts only: the house's have most of the entries, and nobody searches them.
for _column in (ledger_entries.c.occurred_at, ledger_entries.c.kind):
    Index(
        None,
        ledger_entries.c.account_id,
        _column,
        ledger_entries.c.position,
        postgresql_where=ledger_entries.c.position.is_not(None),
    )

# Money of an account that is kept for a payee. Those that are open count as held.
holds = Table(
    "holds",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", Uuid, ForeignKey(accounts.c.id), nullable=False),
    Column("payee_id", Uuid, ForeignKey(accounts.c.id), nullable=False),
    Column("amount", BigInteger, nullable=False, comment="minor units"),
    Column("captured", BigInteger, nullable=False, comment="of the amount; the rest was freed"),
    Column("description", Text, nullable=False),
    Column("placed_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("state", Text, nullable=False, comment="open, captured, released or expired"),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("account_id <> payee_id", name="payee"),
    CheckConstraint(
        "captured BETWEEN 0 AND amount AND (captured > 0) = (state = 'captured')", name="captured"
    ),
    CheckConstraint("state IN ('open', 'captured', 'released', 'expired')", name="state"),
)
# Written out: with a parameter, a plan for any value could not use the index.
hold_is_open = holds.c.state == literal_column("'open'")
Index("holds_open_idx", holds.c.account_id, postgresql_where=hold_is_open)

# A transfer is reversed once.
reversals = Table(
    "reversals",
    metadata,
    Column("transfer_id", Uuid, primary_key=True, comment="the transaction that was reversed"),
    Column("reversal_id", Uuid, nullable=False, unique=True, comment="the one that reverses it"),
)

# The users by name: a projection of their events.
owners = Table(
    "owners",
    metadata,
    Column("username", Text, primary_key=True),
    Column("user_id", Uuid, nullable=False),
)

chassis_tables.add_to(metadata)
