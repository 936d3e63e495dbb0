"""Gaps as ranges, and where an operator lets a consumer park beyond its limit."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "chassis_0003"
down_revision: str | Sequence[str] | None = "chassis_0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("inbox_missing", sa.Column("last_sequence", sa.BigInteger()))
    op.execute("UPDATE inbox_missing SET last_sequence = sequence")
    op.alter_column(
        "inbox_missing", "last_sequence", nullable=False, comment="all up to it are missing"
    )
    op.alter_column("inbox_missing", "sequence", comment="the first that is missing")
    op.create_table(
        "park_allowances",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column(
            "below_offset", sa.BigInteger(), nullable=False, comment="records before it may park"
        ),
        sa.Column("allowed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("park_allowances_pkey")),
    )


def downgrade() -> None:
    op.drop_table("park_allowances")
    # The rest of each range is forgotten, as numbers more than 10,000 before the last one were.
    op.alter_column("inbox_missing", "sequence", comment=None)
    op.drop_column("inbox_missing", "last_sequence")
