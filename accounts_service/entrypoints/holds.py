"""Commands over HTTP: money that is held for a payee."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from accounts_service.application.hold_money import (
    Actor,
    EndHoldHandler,
    PlaceHold,
    PlaceHoldHandler,
)
from accounts_service.application.ports import AccountsWork
from accounts_service.domain.account import Account
from accounts_service.domain.hold import Hold
from accounts_service.entrypoints.bodies import (
    CaptureBody,
    HeldBody,
    HoldBody,
    PlaceHoldBody,
    PostedBody,
    answer,
    posted_answer,
)
from chassis.web.auth import OPERATOR, Principal
from chassis.web.dry_run import with_dry_run
from chassis.web.idempotency import IdempotentCommand
from chassis.web.problems import refusals


def _held(hold_and_payer: tuple[Hold, Account]) -> Response:
    return answer(HeldBody.of(*hold_and_payer), 201)


def _released(hold_and_payer: tuple[Hold, Account]) -> Response:
    hold, payer = hold_and_payer
    # The payee may do it too, whom the payer's balance does not concern.
    return answer(HoldBody.of(hold, payer.currency), 200)


def hold_routes(
    *,
    place: PlaceHoldHandler,
    end: EndHoldHandler,
    by_user: Callable[..., Awaitable[IdempotentCommand[AccountsWork]]],
    signed_in: Callable[..., Awaitable[Principal]],
) -> APIRouter:
    router = APIRouter(tags=["holds"])

    @router.post(
        "/holds",
        status_code=201,
        response_model=HeldBody,
        summary="Hold money for a payee",
        responses=with_dry_run(HeldBody, 404, 409),
    )
    async def post_hold(
        body: PlaceHoldBody,
        who: Annotated[Principal, Depends(signed_in)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_user)],
    ) -> Response:
        """Keep money of your account for a payee, until it is captured, released or expires."""
        expires_in = timedelta(seconds=body.expires_in)
        command = PlaceHold(body.account, body.to, body.amount, body.description, expires_in)
        return await once(lambda work: place(work, who.id, command), answer=_held)

    @router.post(
        "/holds/{hold_id}/capture",
        status_code=201,
        response_model=PostedBody,
        summary="Take what is held for you",
        responses=with_dry_run(PostedBody, 403, 404, 409),
    )
    async def post_capture(
        hold_id: UUID,
        body: CaptureBody,
        who: Annotated[Principal, Depends(signed_in)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_user)],
    ) -> Response:
        """Move what is held, or a part of it, to the payee: by the payee or an operator."""
        return await once(
            lambda work: end.capture(work, _actor(who), hold_id, body.amount), answer=posted_answer
        )

    @router.post(
        "/holds/{hold_id}/release",
        response_model=HoldBody,
        summary="Release what is held for you",
        responses=refusals(400, 403, 404, 409),
    )
    async def post_release(
        hold_id: UUID,
        who: Annotated[Principal, Depends(signed_in)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_user)],
    ) -> Response:
        """Let what is held be the payer's again: by the payee or an operator."""
        return await once(lambda work: end.release(work, _actor(who), hold_id), answer=_released)

    return router


def _actor(who: Principal) -> Actor:
    return Actor(who.id, operator=OPERATOR in who.roles)
