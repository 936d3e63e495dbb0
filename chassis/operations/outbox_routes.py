"""The operators' routes to the outbox."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from chassis.operations.acts import ActReason, Operator
from chassis.operations.context import ServiceRuntime
from chassis.operations.outbox import OutboxBody, OutboxSearch, SetAside, WholeRowBody
from chassis.web.auth import Principal


class PayloadEdit(ActReason):
    """The event as it is to be published, whole."""

    payload: dict[str, Any]


def outbox_routes(
    operations: ServiceRuntime[Any, Any], operator: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    router = APIRouter(prefix="/outbox", dependencies=[Depends(operator)])
    set_aside = SetAside(operations)

    @router.get("", summary="What waits to be published, and what Kafka refused")
    async def get_outbox(search: Annotated[OutboxSearch, Query()]) -> OutboxBody:
        return await set_aside.page(search)

    @router.get("/{event_id}", summary="A row that Kafka refused, whole")
    async def get_outbox_row(event_id: UUID) -> WholeRowBody:
        return await set_aside.whole(event_id)

    @router.put("/{event_id}/payload", status_code=204, summary="Change what is published")
    async def put_outbox_payload(
        event_id: UUID, body: PayloadEdit, who: Annotated[Principal, Depends(operator)]
    ) -> None:
        """Change a row that was set aside; it is the same event, of the same type.

        What Kafka refused as too large is larger than a request may be: only its smaller
        successor comes this way.
        """
        await set_aside.edit(event_id, body.payload, Operator(str(who.id), body.why))

    @router.post("/{event_id}/release", status_code=204, summary="Publish it again, in its place")
    async def post_outbox_release(
        event_id: UUID, body: ActReason, who: Annotated[Principal, Depends(operator)]
    ) -> None:
        await set_aside.release(event_id, Operator(str(who.id), body.why))

    @router.post("/{event_id}/discard", status_code=204, summary="Never publish it")
    async def post_outbox_discard(
        event_id: UUID, body: ActReason, who: Annotated[Principal, Depends(operator)]
    ) -> None:
        """Publish in its place, under its sequence, an event that says it was withheld."""
        await set_aside.discard(event_id, Operator(str(who.id), body.why))

    return router
