"""The routes of the notification service."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from chassis.auth import Principal
from notification_service.deliveries import State
from notification_service.queries import DeliveryFilter, ListDeliveries


class DeliveryView(BaseModel):
    """One rule's answer to one event, and how far it has come."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    rule: str
    event_id: UUID
    medium: str
    address: str
    text: str
    state: State
    attempts: int
    last_error: Annotated[
        str | None, Field(description="the other side's own code, if it gave one")
    ]
    next_attempt_at: datetime | None
    unsure_since: Annotated[
        datetime | None, Field(description="when the first try began that may have arrived")
    ]
    maybe_repeated: Annotated[
        bool, Field(description="it was sent again after a try that was not found to have arrived")
    ]
    message_id: Annotated[str | None, Field(description="the other side's id; Slack's ts")]
    correlation_id: str
    traceparent: str | None
    created_at: datetime
    sent_at: datetime | None


class DeliveryPage(BaseModel):
    deliveries: list[DeliveryView]
    next: Annotated[
        UUID | None, Field(description="the `before` of the next page, if there is one")
    ]


def routes(
    list_deliveries: ListDeliveries, operator: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    router = APIRouter(tags=["notifications"], dependencies=[Depends(operator)])

    @router.get("/notifications/deliveries", summary="What was told to whom, newest first")
    async def get_deliveries(
        state: State | None = None,
        rule: Annotated[str | None, Query(min_length=1, max_length=100)] = None,
        event_id: UUID | None = None,
        correlation_id: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
        before: Annotated[UUID | None, Query(description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> DeliveryPage:
        wanted = DeliveryFilter(
            state=state, rule=rule, event_id=event_id, correlation_id=correlation_id
        )
        rows = await list_deliveries(wanted, before=before, limit=limit + 1)
        page = [DeliveryView.model_validate(row) for row in rows[:limit]]
        return DeliveryPage(deliveries=page, next=page[-1].id if len(rows) > limit else None)

    return router
