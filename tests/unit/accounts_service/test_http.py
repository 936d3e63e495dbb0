from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import httpx
import pytest
from fastapi import Header
from pydantic import SecretStr

from accounts_service.adapters.in_memory import InMemoryAccountViews, InMemoryTransactor
from accounts_service.application.queries import ReadAccount
from accounts_service.domain.account import Account
from accounts_service.entrypoints.http import routes
from accounts_service.settings import AccountsSettings
from chassis.correlation import new_id
from chassis.web.app import create_app
from chassis.web.auth import OPERATOR, NotAuthenticated, Principal
from chassis.web.health import Health

from .making import an_account, now, post
from .ports_suite import store


async def signed_in(
    test_user: Annotated[UUID | None, Header()] = None,
    test_role: Annotated[str, Header()] = "",
) -> Principal:
    """Take user and role from headers instead of a token."""
    if test_user is None:
        raise NotAuthenticated
    return Principal(test_user, frozenset(test_role.split()))


@pytest.fixture
async def account(transactor: InMemoryTransactor) -> Account:
    account = an_account()
    post(account, 1500)
    await store(transactor, account)
    return account


@pytest.fixture
async def transactor() -> InMemoryTransactor:
    return InMemoryTransactor(now)


@pytest.fixture
async def client(transactor: InMemoryTransactor) -> AsyncIterator[httpx.AsyncClient]:
    settings = AccountsSettings(
        database_url=SecretStr("postgresql://accounts@127.0.0.1:1/accounts"),
        jwks_url="http://127.0.0.1:1/jwks.json",
        idempotency_secret=SecretStr("s" * 32),
    )
    app = create_app(
        title="Accounts",
        description="",
        version="1",
        settings=settings,
        routers=[routes(ReadAccount(InMemoryAccountViews(transactor)), signed_in=signed_in)],
        health=Health(),
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://accounts") as client:
        yield client


def by(user_id: UUID, role: str = "") -> dict[str, str]:
    return {"test-user": str(user_id), "test-role": role}


class TestReadingAnAccount:
    @pytest.mark.parametrize(
        "path", ["/users/me/account", "/users/{user_id}/account", "/accounts/{id}"]
    )
    async def test_the_owner_reads_balance_currency_and_transactions(
        self, client: httpx.AsyncClient, account: Account, path: str
    ) -> None:
        response = await client.get(
            path.format(user_id=account.user_id, id=account.id), headers=by(account.user_id)
        )

        assert response.status_code == 200
        body = response.json()
        newest, initial = body.pop("transactions")
        assert body == {
            "id": str(account.id),
            "user_id": str(account.user_id),
            "currency": "USD",
            "state": "open",
            "balance": "15.00",
            "opened_at": "2026-01-02T03:04:05Z",
        }
        assert (newest["delta"], newest["balance_after"], newest["position"]) == (
            "15.00",
            "15.00",
            2,
        )
        del initial["id"]
        assert initial == {
            "position": 1,
            "kind": "opening",
            "delta": "0.00",
            "balance_after": "0.00",
            "description": "Initial",
            "occurred_at": "2026-01-02T03:04:05Z",
        }

    @pytest.mark.parametrize("path", ["/users/{user_id}/account", "/accounts/{id}"])
    async def test_an_operator_reads_every_account(
        self, client: httpx.AsyncClient, account: Account, path: str
    ) -> None:
        response = await client.get(
            path.format(user_id=account.user_id, id=account.id), headers=by(new_id(), OPERATOR)
        )

        assert response.status_code == 200
        assert response.json()["id"] == str(account.id)

    @pytest.mark.parametrize("path", ["/users/{user_id}/account", "/accounts/{id}"])
    async def test_others_get_the_answer_for_an_account_that_does_not_exist(
        self, client: httpx.AsyncClient, account: Account, path: str
    ) -> None:
        other_user = by(new_id())
        theirs = await client.get(
            path.format(user_id=account.user_id, id=account.id), headers=other_user
        )
        missing = await client.get(path.format(user_id=new_id(), id=new_id()), headers=other_user)

        assert theirs.status_code == missing.status_code == 404
        for response in (theirs, missing):
            problem = response.json()
            del problem["correlation_id"]
            assert problem == {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "code": "account-not-found",
                "detail": "There is no such account that you may see.",
            }

    @pytest.mark.parametrize("path", ["/users/{user_id}/account", "/accounts/{id}"])
    async def test_without_a_token_it_answers_401(
        self, client: httpx.AsyncClient, account: Account, path: str
    ) -> None:
        response = await client.get(path.format(user_id=account.user_id, id=account.id))

        assert response.status_code == 401

    @pytest.mark.parametrize("path", ["/users/{id}/account", "/accounts/{id}"])
    async def test_an_invalid_id_is_refused(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.get(path.format(id="seven"), headers=by(new_id()))

        assert response.status_code == 422
        assert response.json()["code"] == "invalid-fields"
