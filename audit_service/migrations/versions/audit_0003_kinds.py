"""One index for the searches by type, by topic and by source, in place of four."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from chassis.migrations import concurrently

revision: str = "audit_0003"
down_revision: str | Sequence[str] | None = "audit_0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

contracts = (
    "the code before finds the same without them, but its searches by type, topic, source and"
    " validity read the whole table"
)

_BEFORE = {
    "records_type_occurred_at_position_idx": ["type", "occurred_at", "position"],
    "records_source_occurred_at_position_idx": ["source", "occurred_at", "position"],
    "records_topic_occurred_at_position_idx": ["topic", "occurred_at", "position"],
}


def upgrade() -> None:
    with concurrently():  # records are added and searched meanwhile
        op.create_index(
            "records_kind_idx",
            "records",
            [
                sa.text("coalesce(type, '')"),
                "topic",
                sa.text("coalesce(source, '')"),
                "occurred_at",
                "position",
            ],
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        # An expression has statistics of its own.
        for column in (1, 3):
            op.execute(f"ALTER INDEX records_kind_idx ALTER COLUMN {column} SET STATISTICS 10")
        for name in (*_BEFORE, "records_invalid_idx"):
            op.drop_index(name, "records", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    for name, columns in _BEFORE.items():
        op.create_index(name, "records", columns)
    op.create_index(
        "records_invalid_idx",
        "records",
        ["occurred_at", "position"],
        postgresql_where=sa.text("invalid_reason IS NOT NULL"),
    )
    op.drop_index("records_kind_idx", "records")
