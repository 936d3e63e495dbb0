"""The numbers of the records, and a smaller sample for the planner's statistics."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "audit_0002"
down_revision: str | Sequence[str] | None = "audit_0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COLUMNS = (
    *("position", "topic", "partition", "offset", "key", "headers", "payload", "sha256"),
    *("recorded_at", "invalid_reason", "event_id", "source", "type", "subject", "occurred_at"),
    *("sequence", "correlation_id", "causation_id", "traceparent", "verdict", "altered"),
)


def upgrade() -> None:
    op.create_table(
        "record_numbers",
        sa.Column(
            "number",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="1, 2, 3 and so on",
        ),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("record_numbers_pkey")),
        sa.UniqueConstraint("position", name=op.f("record_numbers_position_key")),
    )
    op.execute(
        """
        CREATE TRIGGER record_numbers_are_only_added
        BEFORE UPDATE OR DELETE OR TRUNCATE ON record_numbers
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_evidence()
        """
    )
    op.execute("ALTER TABLE record_numbers ENABLE ALWAYS TRIGGER record_numbers_are_only_added")
    op.create_table(
        "numbering",
        sa.Column("only_row", sa.Boolean(), nullable=False),
        sa.Column(
            "numbered_to",
            sa.BigInteger(),
            nullable=False,
            comment="each record up to this position has its number, and none appears there any"
            " more",
        ),
        sa.Column(
            "seen_to",
            sa.BigInteger(),
            nullable=False,
            comment="was the highest position at a moment",
        ),
        sa.Column(
            "writers",
            sa.ARRAY(sa.Text()),
            nullable=False,
            comment="the virtual transactions that were adding records at that moment",
        ),
        sa.CheckConstraint("only_row", name=op.f("numbering_only_row_check")),
        sa.PrimaryKeyConstraint("only_row", name=op.f("numbering_pkey")),
    )
    op.execute("INSERT INTO numbering VALUES (true, 0, 0, '{}')")
    _sample(10)


def downgrade() -> None:
    _sample(-1)
    op.drop_table("numbering")
    op.drop_table("record_numbers")


def _sample(target: int) -> None:
    """Have ANALYZE read 300 times as many rows; -1: as many as the server's default says."""
    # The searches do not depend on statistics, and ANALYZE reads whole rows.
    each = ", ".join(f'ALTER COLUMN "{name}" SET STATISTICS {target}' for name in _COLUMNS)
    op.execute(f"ALTER TABLE records {each}")
