"""What operators put in the place of events, where it is too large for the event about the act."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "chassis_0006"
down_revision: str | Sequence[str] | None = "chassis_0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "edited_payloads",
        sa.Column(
            "id", sa.Uuid(), nullable=False, comment="UUIDv7; the event about the act has it"
        ),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("edited_payloads_pkey")),
    )


def downgrade() -> None:
    op.drop_table("edited_payloads")
