"""Deliveries with their states, and the addresses to which nothing is sent for a while."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "notification_0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = ("notification",)
depends_on: str | Sequence[str] | None = ("chassis_0001",)


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7; the other side is told it"),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("medium", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=False,
            comment="claims; each mark names the one it is of",
        ),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when anyone may take it up; null: never again",
        ),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "unsure_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="begin of the first try that may have arrived",
        ),
        sa.Column(
            "maybe_repeated",
            sa.Boolean(),
            nullable=False,
            comment="sent again, not found at a look",
        ),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column(
            "message_id",
            sa.Text(),
            nullable=True,
            comment="the other side's id of it; Slack calls it ts",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(next_attempt_at IS NOT NULL) = (state IN ('pending', 'sending'))",
            name=op.f("deliveries_open_check"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'sent', 'failed')",
            name=op.f("deliveries_state_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("deliveries_pkey")),
    )
    op.create_index(op.f("deliveries_correlation_id_idx"), "deliveries", ["correlation_id"])
    op.create_index("deliveries_event_id_rule_key", "deliveries", ["event_id", "rule"], unique=True)
    op.create_index(
        "deliveries_open_idx",
        "deliveries",
        ["medium", "next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index(op.f("deliveries_state_id_idx"), "deliveries", ["state", "id"])
    op.create_table(
        "pauses",
        sa.Column("medium", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("medium", "address", name=op.f("pauses_pkey")),
    )


def downgrade() -> None:
    op.drop_table("pauses")
    op.drop_table("deliveries")
