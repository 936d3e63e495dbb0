"""The service over HTTP: accounts and their transactions, for their owners and for operators."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from accounts_service.application.ports import AccountHead
from accounts_service.application.queries import (
    ReadAccount,
    Reader,
    ReadTransactions,
    TransactionFilter,
)
from accounts_service.domain.account import TransactionKind
from accounts_service.entrypoints.answers import AccountAnswers
from accounts_service.entrypoints.bodies import AccountBody, DecimalText, TransactionBody
from accounts_service.entrypoints.csv_export import as_csv
from chassis.web.auth import OPERATOR, Principal
from chassis.web.paging import PageLimit, Search
from contracts.envelope import Instant

IfNoneMatch = Annotated[
    str | None, Header(description="The `ETag` of an answer that you have, or several.")
]

_UNCHANGED: Final[Mapping[int | str, dict[str, Any]]] = {
    304: {"description": "You have the newest answer."}
}


class Csv(StreamingResponse):
    media_type = "text/csv"


class TransactionSearch(Search):
    """Which transactions to find."""

    kind: TransactionKind | None = None
    since: Annotated[Instant | None, Field(description="Inclusive.")] = None
    until: Annotated[Instant | None, Field(description="Exclusive.")] = None

    @property
    def filter(self) -> TransactionFilter:
        return TransactionFilter(self.kind, self.since, self.until)


class TransactionPageSearch(TransactionSearch):
    """Which transactions to find, and which page of them."""

    before: Annotated[
        int | None, Field(ge=1, lt=2**63, description="`next` of the page before.")
    ] = None
    limit: PageLimit = 50


class BalanceSearch(Search):
    at: Annotated[
        Instant | None, Field(description="A time that has passed; now, if it is left out.")
    ] = None


class TransactionsBody(BaseModel):
    """Transactions of an account, newest first."""

    transactions: list[TransactionBody]
    next: Annotated[int | None, Field(description="`before` of the next page; null on the last.")]


class BalanceBody(BaseModel):
    """An account's balance after its last transaction at a time or before."""

    account_id: UUID
    currency: str = Field(description="ISO 4217.")
    at: Instant
    balance: DecimalText = Field(description="0 before the account was opened.")


def routes(
    read_account: ReadAccount,
    read_transactions: ReadTransactions,
    *,
    signed_in: Callable[..., Awaitable[Principal]],
) -> APIRouter:
    router = APIRouter(tags=["accounts"])
    answers = AccountAnswers(read_account)

    async def visible(
        account_id: UUID, who: Annotated[Principal, Depends(signed_in)]
    ) -> AccountHead:
        return await read_account.head(_reader(who), account_id)

    # Before the next, which "me" would match too.
    @router.get(
        "/users/me/account",
        response_model=AccountBody,
        responses={**_UNCHANGED},
        summary="Your account",
    )
    async def get_my_account(
        who: Annotated[Principal, Depends(signed_in)], if_none_match: IfNoneMatch = None
    ) -> Response:
        """Return your account; it is opened a moment after you sign up."""
        account = await read_account.head_of_user(_reader(who), who.id)
        return await answers.answer(account, if_none_match)

    @router.get(
        "/users/{user_id}/account",
        response_model=AccountBody,
        responses={**_UNCHANGED},
        summary="A user's account",
    )
    async def get_account_of_user(
        user_id: UUID,
        who: Annotated[Principal, Depends(signed_in)],
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """Return a user's account to its owner or to an operator; others get 404."""
        account = await read_account.head_of_user(_reader(who), user_id)
        return await answers.answer(account, if_none_match)

    @router.get(
        "/accounts/{account_id}",
        response_model=AccountBody,
        responses={**_UNCHANGED},
        summary="An account",
    )
    async def get_account(
        account: Annotated[AccountHead, Depends(visible)], if_none_match: IfNoneMatch = None
    ) -> Response:
        """Return an account to its owner or to an operator; others get 404."""
        return await answers.answer(account, if_none_match)

    @router.get("/accounts/{account_id}/transactions", summary="The transactions of an account")
    async def get_transactions(
        account: Annotated[AccountHead, Depends(visible)],
        search: Annotated[TransactionPageSearch, Query()],
    ) -> TransactionsBody:
        """Return a page of an account's transactions, newest first."""
        page = await read_transactions.page(
            account, search.filter, before=search.before, limit=search.limit
        )
        return TransactionsBody(
            transactions=[TransactionBody.of(each, account.currency) for each in page.items],
            next=page.next,
        )

    @router.get(
        "/accounts/{account_id}/transactions.csv",
        response_class=Csv,
        summary="The transactions of an account for a spreadsheet",
    )
    async def get_transactions_as_csv(
        account: Annotated[AccountHead, Depends(visible)],
        search: Annotated[TransactionSearch, Query()],
    ) -> Response:
        """Return all transactions up to now, newest first, as CSV.

        A description that a spreadsheet would run has an apostrophe before it. If the answer is
        not complete, the connection breaks.
        """
        batches = read_transactions.batches(account, search.filter)
        return Csv(
            as_csv(batches, account.currency),
            headers={"Content-Disposition": 'attachment; filename="transactions.csv"'},
        )

    @router.get("/accounts/{account_id}/balance", summary="The balance at some time")
    async def get_balance(
        account: Annotated[AccountHead, Depends(visible)], search: Annotated[BalanceSearch, Query()]
    ) -> BalanceBody:
        """Return the balance that an account had at some time.

        What was posted in the last seconds may still be on its way to the ledger.
        """
        at, balance = await read_transactions.balance(account, search.at)
        return BalanceBody(
            account_id=account.id, currency=account.currency.code, at=at, balance=str(balance)
        )

    return router


def _reader(who: Principal) -> Reader:
    return Reader(user_id=who.id, operator=OPERATOR in who.roles)
