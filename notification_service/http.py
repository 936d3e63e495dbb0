"""The routes of the notification service."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from chassis.operations.acts import ActReason, Operator
from chassis.web.auth import Principal
from contracts.envelope import Name, ShortName
from notification_service.deliveries import State
from notification_service.queries import DeliveryFilter, ListDeliveries
from notification_service.retry import RetryDelivery


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
        str | None, Field(description="The other side's own code, if it gave one.")
    ]
    next_attempt_at: datetime | None
    unsure_since: Annotated[
        datetime | None, Field(description="When the first try began that may have arrived.")
    ]
    maybe_repeated: Annotated[
        bool,
        Field(description="It was sent again after a try that may have arrived and was not found."),
    ]
    message_id: Annotated[str | None, Field(description="The other side's id; Slack's ts.")]
    correlation_id: str
    traceparent: str | None
    created_at: datetime
    sent_at: datetime | None


class DeliveryPage(BaseModel):
    """Deliveries, those planned last first; ``next`` is null on the last page."""

    deliveries: list[DeliveryView]
    next: UUID | None


class Search(BaseModel):
    """What to look for: a delivery is found where all that is given holds."""

    # A filter that is misspelt must not find everything.
    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    rule: Annotated[Name | None, Field(examples=["slack-growth-user-signed-up"])] = None
    event_id: UUID | None = None
    correlation_id: ShortName | None = None
    after: Annotated[UUID | None, Field(description="`next` of the page before.")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


async def page_of(list_deliveries: ListDeliveries, search: Search) -> DeliveryPage:
    """Return the page that was asked for."""
    wanted = DeliveryFilter(**search.model_dump(exclude={"after", "limit"}))
    rows = await list_deliveries(wanted, after=search.after, limit=search.limit + 1)
    page = [DeliveryView.model_validate(row) for row in rows[: search.limit]]
    more = len(rows) > search.limit
    return DeliveryPage(deliveries=page, next=page[-1].id if more else None)


def routes(
    list_deliveries: ListDeliveries,
    retry: RetryDelivery,
    an_operator: Callable[..., Awaitable[Principal]],
) -> APIRouter:
    router = APIRouter(prefix="/notifications", dependencies=[Depends(an_operator)])

    @router.get("/deliveries", summary="What was told to whom, and how far that has come")
    async def get_deliveries(search: Annotated[Search, Query()]) -> DeliveryPage:
        return await page_of(list_deliveries, search)

    @router.post(
        "/deliveries/{delivery_id}/retry", status_code=204, summary="Send one again that failed"
    )
    async def post_delivery_retry(
        delivery_id: UUID, body: ActReason, who: Annotated[Principal, Depends(an_operator)]
    ) -> None:
        """Send it again at once; where it may have arrived, it is looked for first."""
        await retry(delivery_id, Operator(str(who.id), body.why))

    return router
