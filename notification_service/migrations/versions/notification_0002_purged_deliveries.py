"""What is left of a delivery that was purged."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "notification_0002"
down_revision: str | Sequence[str] | None = "notification_0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "purged_deliveries",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False, comment="of the delivery"),
        sa.PrimaryKeyConstraint("event_id", "rule", name=op.f("purged_deliveries_pkey")),
    )


def downgrade() -> None:
    op.drop_table("purged_deliveries")
