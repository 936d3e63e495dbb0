"""What is missing of a subject, as ranges."""

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


def downgrade() -> None:
    # The rest of each range is forgotten, as numbers more than 10,000 before the last one were.
    op.alter_column("inbox_missing", "sequence", comment=None)
    op.drop_column("inbox_missing", "last_sequence")
