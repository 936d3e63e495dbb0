"""Indexes for the search by time and by kind; the house's entries are not in them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from chassis.migrations import concurrently

revision: str = "accounts_0004"
down_revision: str | Sequence[str] | None = "accounts_0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COLUMNS = ("occurred_at", "kind")


def _name(column: str) -> str:
    return f"ledger_entries_account_id_{column}_position_idx"


def upgrade() -> None:
    with concurrently():  # money moves meanwhile
        for column in _COLUMNS:
            op.create_index(
                _name(column),
                "ledger_entries",
                ["account_id", column, "position"],
                postgresql_where=sa.text("position IS NOT NULL"),
                postgresql_concurrently=True,
                if_not_exists=True,
            )


def downgrade() -> None:
    for column in reversed(_COLUMNS):
        op.drop_index(_name(column), table_name="ledger_entries")
