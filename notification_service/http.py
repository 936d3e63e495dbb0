"""The routes of the notification service."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from chassis.operations.acts import ActReason, Operator
from chassis.web.auth import Principal
from notification_service.queries import DeliveryPage, DeliverySearch, ListDeliveries
from notification_service.retry import RetryDelivery


def routes(
    list_deliveries: ListDeliveries,
    retry: RetryDelivery,
    an_operator: Callable[..., Awaitable[Principal]],
) -> APIRouter:
    router = APIRouter(prefix="/notifications", dependencies=[Depends(an_operator)])

    @router.get("/deliveries", summary="What was told to whom, and how far that has come")
    async def get_deliveries(search: Annotated[DeliverySearch, Query()]) -> DeliveryPage:
        return await list_deliveries(search)

    @router.post(
        "/deliveries/{delivery_id}/retry", status_code=204, summary="Send one again that failed"
    )
    async def post_delivery_retry(
        delivery_id: UUID, body: ActReason, who: Annotated[Principal, Depends(an_operator)]
    ) -> None:
        """Send it again at once; where it may have arrived, it is looked for first."""
        await retry(delivery_id, Operator(str(who.id), body.why))

    return router
