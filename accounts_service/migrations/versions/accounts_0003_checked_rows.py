"""Check the rows from before for what accounts_0002 asks of new ones; writers go on meanwhile."""

from collections.abc import Sequence

from alembic import op

revision: str = "accounts_0003"
down_revision: str | Sequence[str] | None = "accounts_0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("ALTER TABLE accounts VALIDATE CONSTRAINT accounts_state_check")
    op.execute("ALTER TABLE accounts VALIDATE CONSTRAINT accounts_closed_check")
    op.execute("ALTER TABLE accounts VALIDATE CONSTRAINT accounts_held_check")
    op.execute("ALTER TABLE accounts VALIDATE CONSTRAINT accounts_next_expiry_check")
    op.execute("ALTER TABLE ledger_entries VALIDATE CONSTRAINT ledger_entries_delta_check")


def downgrade() -> None:
    """A checked constraint needs no unchecking."""
