"""The service over HTTP: accounts, for their owners and for operators."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from accounts_service.application.queries import ReadAccount, Reader
from accounts_service.entrypoints.bodies import AccountBody
from chassis.web.auth import OPERATOR, Principal


def routes(
    read_account: ReadAccount, *, signed_in: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    router = APIRouter(tags=["accounts"])

    # Before the next, which "me" would match too.
    @router.get("/users/me/account", summary="Your account")
    async def get_my_account(who: Annotated[Principal, Depends(signed_in)]) -> AccountBody:
        """Return your account; it is opened a moment after you sign up."""
        return AccountBody.of(await read_account.of_user(_reader(who), who.id))

    @router.get("/users/{user_id}/account", summary="A user's account")
    async def get_account_of_user(
        user_id: UUID, who: Annotated[Principal, Depends(signed_in)]
    ) -> AccountBody:
        """Return a user's account to its owner or to an operator; others get 404."""
        account = await read_account.of_user(_reader(who), user_id)
        return AccountBody.of(account)

    @router.get("/accounts/{account_id}", summary="An account")
    async def get_account(
        account_id: UUID, who: Annotated[Principal, Depends(signed_in)]
    ) -> AccountBody:
        """Return an account to its owner or to an operator; others get 404."""
        account = await read_account.by_id(_reader(who), account_id)
        return AccountBody.of(account)

    return router


def _reader(who: Principal) -> Reader:
    return Reader(user_id=who.id, operator=OPERATOR in who.roles)
