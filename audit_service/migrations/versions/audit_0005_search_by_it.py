"""The index for the search by what a client calls its request; most records are not in it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from chassis.migrations import concurrently

revision: str = "audit_0005"
down_revision: str | Sequence[str] | None = "audit_0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NAME = "records_client_correlation_id_occurred_at_position_idx"


def upgrade() -> None:
    with concurrently():  # records are added and searched meanwhile
        op.create_index(
            _NAME,
            "records",
            ["client_correlation_id", "occurred_at", "position"],
            postgresql_where=sa.text("client_correlation_id IS NOT NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_index(_NAME, "records")
