"""Commands over HTTP: money that moves, and accounts that are frozen and closed."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from accounts_service.application.change_state import ChangeStateHandler
from accounts_service.application.ports import AccountsWork
from accounts_service.application.post_transaction import PostTransaction, PostTransactionHandler
from accounts_service.application.transfer import (
    ReverseTransferHandler,
    TransferHandler,
    TransferMoney,
)
from accounts_service.domain.account import Account
from accounts_service.entrypoints.bodies import (
    PostedBody,
    PostTransactionBody,
    Reason,
    ReasonBody,
    StateBody,
    TransferBody,
    answer,
    posted_answer,
)
from chassis.web.auth import Principal
from chassis.web.dry_run import with_dry_run
from chassis.web.idempotency import IdempotentCommand
from chassis.web.problems import refusals


def _changed(account: Account) -> Response:
    return answer(StateBody.of(account), 200)


def money_routes(
    *,
    post: PostTransactionHandler,
    transfer: TransferHandler,
    reverse: ReverseTransferHandler,
    change: ChangeStateHandler,
    by_owner: Callable[..., Awaitable[IdempotentCommand[AccountsWork]]],
    by_operator: Callable[..., Awaitable[IdempotentCommand[AccountsWork]]],
    signed_in: Callable[..., Awaitable[Principal]],
    operator: Callable[..., Awaitable[Principal]],
) -> APIRouter:
    router = APIRouter(tags=["money"])

    @router.post(
        "/accounts/{account_id}/transactions",
        status_code=201,
        response_model=PostedBody,
        summary="Deposit or withdraw",
        responses=with_dry_run(PostedBody, 404, 409),
    )
    async def post_transaction(
        account_id: UUID,
        body: PostTransactionBody,
        who: Annotated[Principal, Depends(signed_in)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_owner)],
    ) -> Response:
        """Bring money into your account, or take it out."""
        command = PostTransaction(account_id, body.transaction_kind, body.amount, body.description)
        return await once(lambda work: post(work, who.id, command), answer=posted_answer)

    @router.post(
        "/transfers",
        status_code=201,
        response_model=PostedBody,
        summary="Transfer to another account",
        responses=with_dry_run(PostedBody, 404, 409),
    )
    async def post_transfer(
        body: TransferBody,
        who: Annotated[Principal, Depends(signed_in)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_owner)],
    ) -> Response:
        """Transfer money from your account to another one, or to the account of a user."""
        command = TransferMoney(body.from_account, body.to, body.amount, body.description)
        return await once(lambda work: transfer(work, who.id, command), answer=posted_answer)

    @router.post(
        "/transfers/{transfer_id}/reversal",
        status_code=201,
        response_model=PostedBody,
        tags=["operators"],
        summary="Reverse a transfer",
        responses=with_dry_run(PostedBody, 404, 409),
    )
    async def post_reversal(
        transfer_id: UUID,
        body: ReasonBody,
        who: Annotated[Principal, Depends(operator)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_operator)],
    ) -> Response:
        """Bring the money of a transfer back, once; also out of a frozen account."""
        return await once(
            lambda work: reverse(work, transfer_id, by=who.id, reason=body.reason),
            answer=posted_answer,
        )

    @router.post(
        "/accounts/{account_id}/closure",
        response_model=StateBody,
        summary="Close your account",
        responses=refusals(400, 404, 409),
    )
    async def post_closure(
        account_id: UUID,
        who: Annotated[Principal, Depends(signed_in)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_owner)],
    ) -> Response:
        """Close your account, for ever; it must have no money."""
        return await once(lambda work: change.close(work, who.id, account_id), answer=_changed)

    @router.post(
        "/accounts/{account_id}/freeze",
        response_model=StateBody,
        tags=["operators"],
        summary="Freeze an account",
        responses=refusals(400, 404, 409),
    )
    async def post_freeze(
        account_id: UUID,
        body: ReasonBody,
        who: Annotated[Principal, Depends(operator)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_operator)],
    ) -> Response:
        """Let no money go out of an account; it may still come in."""
        return await once(
            lambda work: change.freeze(work, account_id, by=who.id, reason=body.reason),
            answer=_changed,
        )

    @router.delete(
        "/accounts/{account_id}/freeze",
        response_model=StateBody,
        tags=["operators"],
        summary="End the freezing of an account",
        responses=refusals(400, 404, 409),
    )
    async def delete_freeze(
        account_id: UUID,
        reason: Annotated[Reason, Query()],
        who: Annotated[Principal, Depends(operator)],
        once: Annotated[IdempotentCommand[AccountsWork], Depends(by_operator)],
    ) -> Response:
        """Let money go out of an account again."""
        return await once(
            lambda work: change.unfreeze(work, account_id, by=who.id, reason=reason),
            answer=_changed,
        )

    return router
