"""Accounts, and a ledger of entries that add up to zero."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "accounts_0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = ("accounts",)
depends_on: str | Sequence[str] | None = ("chassis_0001",)


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="personal, or which of the house's accounts"
        ),
        sa.Column("user_id", sa.Uuid(), nullable=True, comment="the owner of a personal account"),
        sa.Column("currency", sa.Text(), nullable=False, comment="ISO 4217"),
        sa.Column(
            "balance",
            sa.BigInteger(),
            nullable=True,
            comment="minor units; null: the sum of the entries",
        ),
        sa.Column(
            "last_position",
            sa.BigInteger(),
            nullable=True,
            comment="how many entries a personal account has",
        ),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "sequence", sa.BigInteger(), nullable=False, comment="of the last event published"
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("accounts_currency_check")),
        sa.CheckConstraint("balance >= 0", name=op.f("accounts_balance_check")),
        sa.CheckConstraint(
            "num_nulls(user_id, balance, last_position)"
            " = CASE kind WHEN 'personal' THEN 0 ELSE 3 END",
            name=op.f("accounts_kind_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("accounts_pkey")),
        sa.UniqueConstraint("user_id", name=op.f("accounts_user_id_key")),
    )
    op.create_index(
        "accounts_house_key",
        "accounts",
        ["kind", "currency"],
        unique=True,
        postgresql_where=sa.text("user_id IS NULL"),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), nullable=True, comment="1, 2, 3… of a personal account"
        ),
        sa.Column("delta", sa.BigInteger(), nullable=False, comment="minor units"),
        sa.Column(
            "balance_after",
            sa.BigInteger(),
            nullable=True,
            comment="minor units, of a personal account",
        ),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("balance_after >= 0", name=op.f("ledger_entries_balance_after_check")),
        sa.CheckConstraint(
            "num_nulls(position, balance_after) <> 1", name=op.f("ledger_entries_position_check")
        ),
        sa.CheckConstraint(
            "length(description) BETWEEN 3 AND 255", name=op.f("ledger_entries_description_check")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("ledger_entries_account_id_fkey")
        ),
        sa.PrimaryKeyConstraint("transaction_id", "account_id", name=op.f("ledger_entries_pkey")),
        sa.UniqueConstraint(
            "account_id", "position", name=op.f("ledger_entries_account_id_position_key")
        ),
    )


def downgrade() -> None:
    op.drop_table("ledger_entries")
    op.drop_index("accounts_house_key", table_name="accounts")
    op.drop_table("accounts")
