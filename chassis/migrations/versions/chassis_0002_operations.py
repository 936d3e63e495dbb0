"""What operators do: edited payloads, paused subscribers, and the sequence of their acts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "chassis_0002"
down_revision: str | Sequence[str] | None = "chassis_0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "operated",
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("operated_pkey")),
    )
    op.add_column(
        "outbox_set_aside",
        sa.Column("original_payload", sa.LargeBinary(), comment="null: it was not edited"),
    )
    op.add_column(
        "progress",
        sa.Column(
            "paused_at",
            sa.DateTime(timezone=True),
            comment="null: it is not; an operator resumes it",
        ),
    )
    op.add_column(
        "parked",
        sa.Column(
            "edited_payload",
            sa.LargeBinary(),
            comment="what is handled instead; null: as it came",
        ),
    )


def downgrade() -> None:
    op.drop_column("parked", "edited_payload")
    op.drop_column("progress", "paused_at")
    op.drop_column("outbox_set_aside", "original_payload")
    op.drop_table("operated")
