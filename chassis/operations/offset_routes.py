"""The operators' routes to the subscribers' progress."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from chassis.operations.acts import ActReason, Operator
from chassis.operations.context import ServiceRuntime
from chassis.operations.offsets import Progress, ProgressBody
from chassis.web.auth import Principal
from contracts.events import Text


class OfSubscriber(ActReason):
    """Which subscriber, at which of its topics, and why."""

    subscriber: Text
    topic: Text


def progress_routes(
    operations: ServiceRuntime[Any, Any], operator: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    router = APIRouter(prefix="/progress", dependencies=[Depends(operator)])
    progress = Progress(operations)

    @router.get("", summary="How far each subscriber is")
    async def get_progress() -> ProgressBody:
        return await progress.all()

    @router.post("/pause", status_code=204, summary="Give a subscriber no more events")
    async def post_pause(body: OfSubscriber, who: Annotated[Principal, Depends(operator)]) -> None:
        """Pause it, in all partitions; what it has in hand is finished before the answer."""
        await progress.pause((body.subscriber, body.topic), Operator(str(who.id), body.why))

    @router.post("/resume", status_code=204, summary="Let a subscriber go on where it was paused")
    async def post_resume(body: OfSubscriber, who: Annotated[Principal, Depends(operator)]) -> None:
        await progress.resume((body.subscriber, body.topic), Operator(str(who.id), body.why))

    @router.post("/restart", status_code=204, summary="Have a subscriber begin anew")
    async def post_restart(
        body: OfSubscriber, who: Annotated[Principal, Depends(operator)]
    ) -> None:
        """Empty its state, forget what it parked, and begin at the beginning of the topic.

        Only for a subscriber that says in code how its state is emptied.
        """
        await progress.restart((body.subscriber, body.topic), Operator(str(who.id), body.why))

    return router
