"""The relay passes over the rows of a suspended topic without reading them."""

from collections.abc import Sequence

from alembic import op

from chassis.migrations import concurrently

revision: str = "chassis_0005"
down_revision: str | Sequence[str] | None = "chassis_0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with concurrently():  # commands write to the outbox meanwhile
        op.create_index(
            op.f("outbox_aggregatetype_position_idx"),
            "outbox",
            ["aggregatetype", "position"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_index(op.f("outbox_aggregatetype_position_idx"), "outbox")
