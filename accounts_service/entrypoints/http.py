"""The service over HTTP: what someone has, shown to them and to operators."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from accounts_service.application.ports import AccountView
from accounts_service.application.queries import LATEST_TRANSACTIONS, ReadAccount, Reader
from accounts_service.domain.account import Transaction
from chassis.web.auth import OPERATOR, Principal


class TransactionBody(BaseModel):
    """One change of the balance."""

    id: UUID
    position: int = Field(description="Counts the transactions of this account, from 1.")
    delta: int = Field(description="Minor units of the currency; negative: money left.")
    balance_after: int = Field(description="Minor units.")
    description: str
    occurred_at: datetime

    @classmethod
    def of(cls, transaction: Transaction) -> "TransactionBody":
        return cls(
            id=transaction.id,
            position=transaction.position,
            delta=transaction.delta,
            balance_after=transaction.balance_after,
            description=transaction.description,
            occurred_at=transaction.occurred_at,
        )


class AccountBody(BaseModel):
    """An account and what happened to it lately."""

    id: UUID
    user_id: UUID
    currency: str = Field(description="ISO 4217.")
    balance: int = Field(description="Minor units of the currency, such as cents.")
    opened_at: datetime
    transactions: list[TransactionBody] = Field(
        description=f"The last {LATEST_TRANSACTIONS}, newest first."
    )

    @classmethod
    def of(cls, account: AccountView) -> "AccountBody":
        return cls(
            id=account.id,
            user_id=account.user_id,
            currency=account.currency,
            balance=account.balance,
            opened_at=account.opened_at,
            transactions=[TransactionBody.of(each) for each in account.transactions],
        )


def routes(
    read_account: ReadAccount, *, signed_in: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    router = APIRouter(tags=["accounts"])

    @router.get("/users/{user_id}/account", summary="A user's account")
    async def get_account_of_user(
        user_id: UUID, who: Annotated[Principal, Depends(signed_in)]
    ) -> AccountBody:
        """Return a user's account, to its owner or an operator; to others it is not there."""
        return AccountBody.of(await read_account.of_user(_reader(who), user_id))

    @router.get("/accounts/{account_id}", summary="An account")
    async def get_account(
        account_id: UUID, who: Annotated[Principal, Depends(signed_in)]
    ) -> AccountBody:
        """Return an account, to its owner or an operator; to others it is not there."""
        return AccountBody.of(await read_account.by_id(_reader(who), account_id))

    return router


def _reader(who: Principal) -> Reader:
    return Reader(user_id=who.id, operator=OPERATOR in who.roles)
