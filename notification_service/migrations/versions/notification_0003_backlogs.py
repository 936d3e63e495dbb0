"""Paused deliveries are passed over without being read; those to purge are found by an index."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from chassis.migrations import concurrently

revision: str = "notification_0003"
down_revision: str | Sequence[str] | None = "notification_0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

contracts = "the code before finds what is due by the new index too, only more slowly"


def upgrade() -> None:
    with concurrently():  # deliveries are planned and marked meanwhile
        op.create_index(
            "deliveries_due_idx",
            "deliveries",
            ["medium", "address", "next_attempt_at", "id"],
            postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.create_index(
            "deliveries_waits_idx",
            "deliveries",
            ["medium", "updated_at"],
            postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.create_index(
            "deliveries_finished_idx",
            "deliveries",
            ["updated_at"],
            postgresql_where=sa.text("next_attempt_at IS NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.drop_index(
            "deliveries_open_idx", "deliveries", postgresql_concurrently=True, if_exists=True
        )


def downgrade() -> None:
    op.create_index(
        "deliveries_open_idx",
        "deliveries",
        ["medium", "next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.drop_index("deliveries_finished_idx", "deliveries")
    op.drop_index("deliveries_waits_idx", "deliveries")
    op.drop_index("deliveries_due_idx", "deliveries")
