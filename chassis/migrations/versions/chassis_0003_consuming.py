"""Gaps as ranges, topic ids, holds, and operators' decisions about a consumer that stopped."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "chassis_0003"
down_revision: str | Sequence[str] | None = "chassis_0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TOPIC_ID = "Kafka's id of the topic; all zeros: not known"
_UNKNOWN = "00000000-0000-0000-0000-000000000000"


def _add_topic_id(table: str) -> None:
    op.add_column(
        table,
        sa.Column(
            "topic_id", sa.Uuid(), nullable=False, server_default=_UNKNOWN, comment=_TOPIC_ID
        ),
    )
    op.alter_column(table, "topic_id", server_default=None)


def upgrade() -> None:
    op.add_column("inbox_missing", sa.Column("last_sequence", sa.BigInteger()))
    op.execute("UPDATE inbox_missing SET last_sequence = sequence")
    op.alter_column(
        "inbox_missing", "last_sequence", nullable=False, comment="all up to it are missing"
    )
    op.alter_column("inbox_missing", "sequence", comment="the first that is missing")
    op.add_column(
        "inbox",
        sa.Column(
            "handled_sequences",
            sa.ARRAY(sa.BigInteger()),
            comment="of handled facts of which another version is still to come; null: none",
        ),
    )

    _add_topic_id("progress")
    op.add_column(
        "progress",
        sa.Column("held_because", sa.Text(), comment="null: it is not; an operator ends a hold"),
    )
    op.add_column("progress", sa.Column("held_at", sa.DateTime(timezone=True)))
    _add_topic_id("parked")
    op.drop_index("parked_place_key", table_name="parked")
    op.create_index(
        "parked_place_key",
        "parked",
        ["subscriber", "topic", "topic_id", "partition", "offset"],
        unique=True,
    )
    _add_topic_id("tries")
    op.drop_constraint("tries_pkey", "tries", type_="primary")
    op.create_primary_key(
        op.f("tries_pkey"), "tries", ["subscriber", "topic", "topic_id", "partition", "offset"]
    )

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
    op.create_table(
        "skipped_batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("topic_id", sa.Uuid(), nullable=False, comment=_TOPIC_ID),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("begin_offset", sa.BigInteger(), nullable=False),
        sa.Column("end_offset", sa.BigInteger(), nullable=False, comment="the next that is read"),
        sa.Column("raw", sa.LargeBinary(), comment="null: the broker did not give the bytes"),
        sa.Column("skipped_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("skipped_batches_pkey")),
    )


def downgrade() -> None:
    op.drop_table("skipped_batches")
    op.drop_table("park_allowances")
    # Of a topic that was made again only what is known of the newest offset can stay.
    op.drop_constraint("tries_pkey", "tries", type_="primary")
    op.execute(
        "DELETE FROM tries USING tries AS newer WHERE tries.subscriber = newer.subscriber"
        " AND tries.topic = newer.topic AND tries.partition = newer.partition"
        ' AND tries."offset" = newer."offset" AND tries.topic_id < newer.topic_id'
    )
    op.create_primary_key(
        op.f("tries_pkey"), "tries", ["subscriber", "topic", "partition", "offset"]
    )
    op.drop_column("tries", "topic_id")
    op.drop_index("parked_place_key", table_name="parked")
    op.execute(
        "DELETE FROM parked USING parked AS newer WHERE parked.subscriber = newer.subscriber"
        " AND parked.topic = newer.topic AND parked.partition = newer.partition"
        ' AND parked."offset" = newer."offset" AND parked.topic_id < newer.topic_id'
    )
    op.create_index(
        "parked_place_key", "parked", ["subscriber", "topic", "partition", "offset"], unique=True
    )
    op.drop_column("parked", "topic_id")
    op.drop_column("progress", "held_at")
    op.drop_column("progress", "held_because")
    op.drop_column("progress", "topic_id")
    op.drop_column("inbox", "handled_sequences")
    op.alter_column("inbox_missing", "sequence", comment=None)
    # The rest of each range is forgotten.
    op.drop_column("inbox_missing", "last_sequence")
