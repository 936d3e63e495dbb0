"""What a client calls the request that published a record."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "audit_0004"
down_revision: str | Sequence[str] | None = "audit_0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "records",
        sa.Column(
            "client_correlation_id",
            sa.Text(),
            nullable=True,
            comment="what a client calls the request that published it; nobody has verified it",
        ),
    )
    # As for the other columns.
    op.execute("ALTER TABLE records ALTER COLUMN client_correlation_id SET STATISTICS 10")


def downgrade() -> None:
    op.drop_column("records", "client_correlation_id")
