"""The log of the events that users' browsers are sent, numbered for each user."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "notification_0004"
down_revision: str | Sequence[str] | None = "notification_0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "streams",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "epoch", sa.BigInteger(), nullable=False, comment="ms since 1970 when the numbers began"
        ),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("streams_pkey")),
    )
    op.create_table(
        "stream_events",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column(
            "number", sa.BigInteger(), nullable=False, comment="without a gap, until it is purged"
        ),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False, comment="JSON, as the browser gets it"),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "epoch", "number", name=op.f("stream_events_pkey")),
    )
    op.create_index(op.f("stream_events_stored_at_idx"), "stream_events", ["stored_at"])


def downgrade() -> None:
    op.drop_table("stream_events")
    op.drop_table("streams")
