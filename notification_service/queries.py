"""What operators see of the deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncEngine

from notification_service.deliveries import State
from notification_service.tables import deliveries


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are meant: those that match everything that is said."""

    state: State | None = None
    rule: str | None = None
    event_id: UUID | None = None
    correlation_id: str | None = None


class ListDeliveries:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def __call__(
        self, wanted: DeliveryFilter, *, after: UUID | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return up to ``limit`` rows of ``deliveries``, newest first, from ``after`` on."""
        asked = {
            deliveries.c.state: wanted.state,
            deliveries.c.rule: wanted.rule,
            deliveries.c.event_id: wanted.event_id,
            deliveries.c.correlation_id: wanted.correlation_id,
        }
        query = select(deliveries).order_by(deliveries.c.id.desc()).limit(limit)
        query = query.where(*(column == value for column, value in asked.items() if value))
        if after is not None:
            query = query.where(deliveries.c.id < after)
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).all()
