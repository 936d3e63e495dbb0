"""The records, and the trigger that refuses every change of a record."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "audit_0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = ("audit",)
depends_on: str | Sequence[str] | None = ("chassis_0001",)


def upgrade() -> None:
    op.create_table(
        "records",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column(
            "headers", sa.JSON(), nullable=False, comment="[name, base64 or null] pairs, in order"
        ),
        sa.Column(
            "payload",
            sa.LargeBinary(),
            nullable=True,
            comment="the bytes as they came; null for a tombstone",
        ),
        sa.Column("sha256", sa.LargeBinary(), nullable=False, comment="of the payload"),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "invalid_reason",
            sa.Text(),
            nullable=True,
            comment="why it is no event of ours; null for one that is",
        ),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column(
            "occurred_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="the event's time; recorded_at of what is no event",
        ),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("causation_id", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column(
            "verdict",
            sa.Text(),
            nullable=True,
            comment="what its sequence says: next, after-gap, late, …",
        ),
        sa.Column(
            "altered",
            sa.Boolean(),
            nullable=False,
            comment="its source and id were seen with other bytes",
        ),
        sa.PrimaryKeyConstraint("position", name=op.f("records_pkey")),
        sa.UniqueConstraint(
            "event_id", "source", "sha256", name=op.f("records_event_id_source_sha256_key")
        ),
    )
    op.create_index(
        op.f("records_correlation_id_occurred_at_position_idx"),
        "records",
        ["correlation_id", "occurred_at", "position"],
        unique=False,
    )
    op.create_index(
        "records_invalid_idx",
        "records",
        ["occurred_at", "position"],
        unique=False,
        postgresql_where=sa.text("invalid_reason IS NOT NULL"),
    )
    op.create_index(
        op.f("records_occurred_at_position_idx"),
        "records",
        ["occurred_at", "position"],
        unique=False,
    )
    op.create_index(
        "records_place_key",
        "records",
        ["topic", "partition", "offset", "sha256"],
        unique=True,
        postgresql_where=sa.text("event_id IS NULL"),
    )
    op.create_index(
        op.f("records_source_occurred_at_position_idx"),
        "records",
        ["source", "occurred_at", "position"],
        unique=False,
    )
    op.create_index(
        op.f("records_subject_occurred_at_position_idx"),
        "records",
        ["subject", "occurred_at", "position"],
        unique=False,
    )
    op.create_index(
        op.f("records_topic_occurred_at_position_idx"),
        "records",
        ["topic", "occurred_at", "position"],
        unique=False,
    )
    op.create_index(
        op.f("records_type_occurred_at_position_idx"),
        "records",
        ["type", "occurred_at", "position"],
        unique=False,
    )
    # One statement a call: asyncpg prepares each, and takes no two at once.
    op.execute(
        """
        CREATE FUNCTION refuse_change_of_evidence() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'records are only added, never changed or removed'
                USING ERRCODE = 'restrict_violation';
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER records_are_only_added
        BEFORE UPDATE OR DELETE OR TRUNCATE ON records
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_evidence()
        """
    )
    # Also for a session that replays a replication stream.
    op.execute("ALTER TABLE records ENABLE ALWAYS TRIGGER records_are_only_added")


def downgrade() -> None:
    op.drop_table("records")
    op.execute("DROP FUNCTION refuse_change_of_evidence()")
