"""The operators' routes to parked events."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from chassis.operations.acts import ActReason, Operator
from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letters import (
    DeadLetters,
    ParkedCounts,
    ParkedFilter,
    ParkedPage,
    ParkedSearch,
    WholeParkedBody,
)
from chassis.operations.dry_run import DryRun, DryRunBody
from chassis.operations.release import Release, ReleaseBody
from chassis.web.auth import Principal
from contracts.events import Text


class ParkedEdit(ActReason):
    """The event as it is to be handled, whole."""

    payload: dict[str, Any]


class SubjectRelease(ActReason):
    """Whose parked events are to be handled."""

    subscriber: Text
    topic: Text
    subject: Annotated[Text, Field(description="The aggregate's id.")]


def parked_routes(
    operations: ServiceRuntime[Any, Any], operator: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    router = APIRouter(prefix="/parked", dependencies=[Depends(operator)])
    _add_looking(router, operations)
    _add_deciding(router, operations, operator)
    _add_releasing(router, operations, operator)
    return router


def _add_looking(router: APIRouter, operations: ServiceRuntime[Any, Any]) -> None:
    events = DeadLetters(operations)
    try_out = DryRun(operations)

    @router.get("", summary="What could not be handled")
    async def get_parked(search: Annotated[ParkedSearch, Query()]) -> ParkedPage:
        return await events.page(search)

    @router.get("/count", summary="How much could not be handled, and why")
    async def get_parked_count(wanted: Annotated[ParkedFilter, Query()]) -> ParkedCounts:
        return await events.count(wanted)

    @router.get("/{parked_id}", summary="A parked event, whole")
    async def get_parked_event(parked_id: UUID) -> WholeParkedBody:
        return await events.whole(parked_id)

    @router.post("/{parked_id}/dry-run", summary="What handling it would change")
    async def post_parked_dry_run(parked_id: UUID) -> DryRunBody:
        """Handle it in a transaction that is rolled back."""
        return await try_out(parked_id)


def _add_deciding(
    router: APIRouter,
    operations: ServiceRuntime[Any, Any],
    operator: Callable[..., Awaitable[Principal]],
) -> None:
    events = DeadLetters(operations)

    @router.put("/{parked_id}/payload", status_code=204, summary="Change what is handled")
    async def put_parked_payload(
        parked_id: UUID, body: ParkedEdit, who: Annotated[Principal, Depends(operator)]
    ) -> None:
        """Have other bytes handled in its place, of the same event; those that came are kept."""
        await events.edit(parked_id, body.payload, Operator(str(who.id), body.why))

    @router.post("/{parked_id}/discard", status_code=204, summary="Never handle it")
    async def post_parked_discard(
        parked_id: UUID, body: ActReason, who: Annotated[Principal, Depends(operator)]
    ) -> None:
        await events.discard(parked_id, Operator(str(who.id), body.why))


def _add_releasing(
    router: APIRouter,
    operations: ServiceRuntime[Any, Any],
    operator: Callable[..., Awaitable[Principal]],
) -> None:

    def release_by(who: Principal, body: ActReason) -> Release[Any]:
        return Release(operations, Operator(str(who.id), body.why))

    @router.post("/release", summary="Handle all of an aggregate, in order")
    async def post_subject_release(
        body: SubjectRelease, who: Annotated[Principal, Depends(operator)]
    ) -> ReleaseBody:
        """Handle what is parked of a subject, up to one that fails or is forked."""
        return await release_by(who, body).subject(body.subscriber, body.topic, body.subject)

    @router.post("/{parked_id}/release", summary="Handle it: the first of its aggregate")
    async def post_parked_release(
        parked_id: UUID, body: ActReason, who: Annotated[Principal, Depends(operator)]
    ) -> ReleaseBody:
        return await release_by(who, body).one(parked_id)

    @router.post("/{parked_id}/apply", summary="Handle it all the same, out of order")
    async def post_parked_apply(
        parked_id: UUID, body: ActReason, who: Annotated[Principal, Depends(operator)]
    ) -> ReleaseBody:
        """Handle it whatever is before it, also one of another history (forked)."""
        return await release_by(who, body).apply(parked_id)
