"""Durable timers: what is to be done when, and the first one of each aggregate."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "chassis_0004"
down_revision: str | Sequence[str] | None = "chassis_0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "timers",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7"),
        sa.Column(
            "subject", sa.Uuid(), nullable=False, comment="its aggregate's id; of none: its own"
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("causation_id", sa.Text(), comment="the event that led to it; null: none did"),
        sa.Column("traceparent", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("timers_pkey")),
    )
    op.create_index(
        op.f("timers_subject_due_at_id_idx"), "timers", ["subject", "due_at", "id"], unique=False
    )
    op.create_table(
        "next_timers",
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("timer_id", sa.Uuid(), nullable=False),
        sa.Column(
            "next_at",
            sa.DateTime(timezone=True),
            comment="when a worker may claim it; null: it is parked",
        ),
        sa.Column("claims", sa.BigInteger(), nullable=False, comment="identifies a claim"),
        sa.Column(
            "begun", sa.Boolean(), nullable=False, comment="an attempt began, and has not ended"
        ),
        sa.Column("tries", sa.Integer(), nullable=False, comment="attempts that count against it"),
        sa.Column("failures", sa.Integer(), nullable=False, comment="failed attempts of any kind"),
        sa.Column("first_tried_at", sa.DateTime(timezone=True)),
        sa.Column("last_tried_at", sa.DateTime(timezone=True)),
        sa.Column("error_code", sa.Text(), comment="of the last attempt that failed"),
        sa.Column("error_message", sa.Text()),
        sa.Column("parked_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "(next_at IS NULL) = (parked_at IS NOT NULL)", name=op.f("next_timers_parked_check")
        ),
        sa.PrimaryKeyConstraint("subject", name=op.f("next_timers_pkey")),
    )
    op.create_index(
        "next_timers_due_idx",
        "next_timers",
        ["next_at", "subject"],
        unique=False,
        postgresql_where=sa.text("NOT begun"),
    )
    op.create_index(
        "next_timers_begun_idx",
        "next_timers",
        ["next_at", "subject"],
        unique=False,
        postgresql_where=sa.text("begun"),
    )
    op.create_index(
        "next_timers_failed_idx",
        "next_timers",
        ["timer_id"],
        unique=False,
        postgresql_where=sa.text("error_code IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("next_timers")
    op.drop_table("timers")
