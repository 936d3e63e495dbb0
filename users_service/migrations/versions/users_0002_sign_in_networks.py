"""The networks from which users signed in lately."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "users_0002"
down_revision: str | Sequence[str] | None = "users_0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "sign_in_networks",
        sa.Column(
            "fingerprint", sa.LargeBinary(), nullable=False, comment="whose and where: keyed"
        ),
        sa.Column("signed_in_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("sign_in_networks_pkey")),
    )
    op.create_index(
        op.f("sign_in_networks_signed_in_at_idx"),
        "sign_in_networks",
        ["signed_in_at"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index(op.f("sign_in_networks_signed_in_at_idx"), table_name="sign_in_networks")
    op.drop_table("sign_in_networks")
