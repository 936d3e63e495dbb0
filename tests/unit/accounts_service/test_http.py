import csv
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import httpx
import pytest
from fastapi import Header
from pydantic import SecretStr

from accounts_service.adapters.in_memory import InMemoryAccountViews, InMemoryTransactor
from accounts_service.application.ports import AccountView
from accounts_service.application.queries import BATCH, ReadAccount, ReadTransactions
from accounts_service.domain.account import Account, TransactionKind
from accounts_service.entrypoints import answers
from accounts_service.entrypoints.http import routes
from accounts_service.settings import AccountsSettings
from chassis.correlation import new_id
from chassis.web.app import create_app
from chassis.web.auth import OPERATOR, NotAuthenticated, Principal
from chassis.web.health import Health

from .making import NOW, an_account, now, post, posting, usd
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


class Views(InMemoryAccountViews):
    """Counts how often a whole account is read."""

    whole = 0

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        self.whole += 1
        return await super().by_id(account_id, latest=latest)


@pytest.fixture
def views(transactor: InMemoryTransactor) -> Views:
    return Views(transactor)


@pytest.fixture
async def client(views: Views) -> AsyncIterator[httpx.AsyncClient]:
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
        routers=[routes(ReadAccount(views), ReadTransactions(views, now), signed_in=signed_in)],
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
            "available": "15.00",
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


class TestAnAccountThatIsReadAgain:
    @pytest.mark.parametrize(
        "path", ["/users/me/account", "/users/{user_id}/account", "/accounts/{id}"]
    )
    async def test_is_not_sent_to_a_client_that_has_it(
        self, client: httpx.AsyncClient, account: Account, views: Views, path: str
    ) -> None:
        path = path.format(user_id=account.user_id, id=account.id)
        first = await client.get(path, headers=by(account.user_id))
        views.whole = 0

        again = await client.get(
            path, headers=by(account.user_id) | {"If-None-Match": first.headers["etag"]}
        )

        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["cache-control"] == "private, no-cache"
        assert views.whole == 0

    async def test_is_sent_from_memory(
        self, client: httpx.AsyncClient, account: Account, views: Views
    ) -> None:
        answered = [
            await client.get(path, headers=by(account.user_id))
            for path in (f"/accounts/{account.id}", "/users/me/account")
        ]

        assert answered[0].content == answered[1].content
        assert answered[0].headers["cache-control"] == "private, no-cache"
        assert views.whole == 1

    async def test_is_never_sent_as_it_was_before_a_change(
        self,
        client: httpx.AsyncClient,
        transactor: InMemoryTransactor,
        account: Account,
    ) -> None:
        path = f"/accounts/{account.id}"
        before = await client.get(path, headers=by(account.user_id))
        post(account, -500)
        await store(transactor, account)

        after = await client.get(
            path, headers=by(account.user_id) | {"If-None-Match": before.headers["etag"]}
        )

        assert (after.status_code, after.json()["balance"]) == (200, "10.00")
        assert after.headers["etag"] != before.headers["etag"]

    async def test_that_changes_while_it_is_read_is_sent_under_its_own_tag(
        self,
        client: httpx.AsyncClient,
        transactor: InMemoryTransactor,
        account: Account,
        views: Views,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        old = await views.head(account.id)
        post(account, 1)
        await store(transactor, account)

        async def late_head(_id: UUID) -> object:
            return old

        with monkeypatch.context() as patched:
            patched.setattr(views, "head", late_head)
            raced = await client.get(f"/accounts/{account.id}", headers=by(account.user_id))
        later = await client.get(f"/accounts/{account.id}", headers=by(account.user_id))

        assert raced.json()["balance"] == "15.01"
        assert raced.headers["etag"] == later.headers["etag"]

    async def test_is_sent_to_nobody_else(
        self, client: httpx.AsyncClient, account: Account
    ) -> None:
        first = await client.get(f"/accounts/{account.id}", headers=by(account.user_id))

        other = await client.get(
            f"/accounts/{account.id}",
            headers=by(new_id()) | {"If-None-Match": first.headers["etag"]},
        )

        assert other.status_code == 404

    async def test_is_one_of_a_bounded_number_in_memory(
        self,
        client: httpx.AsyncClient,
        transactor: InMemoryTransactor,
        views: Views,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        many = [an_account() for _ in range(answers.MOST_KEPT + 1)]
        await store(transactor, *many)
        for each in many:
            await client.get(f"/accounts/{each.id}", headers=by(each.user_id))
        views.whole = 0

        for each in (many[-1], many[1], many[0]):
            await client.get(f"/accounts/{each.id}", headers=by(each.user_id))

        assert views.whole == 1


class TestTransactions:
    async def test_the_owner_reads_them_in_pages(
        self, client: httpx.AsyncClient, account: Account
    ) -> None:
        path = f"/accounts/{account.id}/transactions"

        newest = (await client.get(path, params={"limit": 1}, headers=by(account.user_id))).json()
        rest = (
            await client.get(path, params={"before": newest["next"]}, headers=by(account.user_id))
        ).json()

        [deposit] = newest["transactions"]
        assert (deposit["kind"], deposit["delta"], deposit["position"]) == ("deposit", "15.00", 2)
        assert newest["next"] == 2
        assert [each["kind"] for each in rest["transactions"]] == ["opening"]
        assert rest["next"] is None

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"kind": "deposit"}, 1),
            ({"since": "2026-01-02T04:04:05+01:00"}, 2),
            ({"until": "2026-01-02T03:04:05Z"}, 0),
        ],
    )
    async def test_are_filtered_in_both_forms(
        self, client: httpx.AsyncClient, account: Account, query: Mapping[str, str], found: int
    ) -> None:
        path = f"/accounts/{account.id}/transactions"
        page = await client.get(path, params=query, headers=by(account.user_id))
        text = await client.get(f"{path}.csv", params=query, headers=by(account.user_id))

        assert len(page.json()["transactions"]) == found
        assert len(text.text.splitlines()) == 1 + found

    @pytest.mark.parametrize(
        "query",
        [
            {"limit": "0"},
            {"limit": "201"},
            {"before": "0"},
            {"before": str(2**63)},
            {"kind": "gift"},
            {"since": "2026-01-02T03:04:05"},
            {"util": "2026-01-02T03:04:05Z"},
        ],
    )
    async def test_with_an_invalid_filter_are_refused(
        self, client: httpx.AsyncClient, account: Account, query: Mapping[str, str]
    ) -> None:
        answer = await client.get(
            f"/accounts/{account.id}/transactions", params=query, headers=by(account.user_id)
        )

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")

    @pytest.mark.parametrize("path", ["transactions", "transactions.csv", "balance"])
    async def test_are_shown_to_operators_and_hidden_from_others(
        self, client: httpx.AsyncClient, account: Account, path: str
    ) -> None:
        url = f"/accounts/{account.id}/{path}"

        operator = await client.get(url, headers=by(new_id(), OPERATOR))
        other = await client.get(url, headers=by(new_id()))
        missing = await client.get(f"/accounts/{new_id()}/{path}", headers=by(new_id()))

        assert operator.status_code == 200
        assert [(each.status_code, each.json()["code"]) for each in (other, missing)] == [
            (404, "account-not-found")
        ] * 2
        assert (await client.get(url)).status_code == 401

    async def test_are_exported_whole_for_a_spreadsheet(
        self, client: httpx.AsyncClient, transactor: InMemoryTransactor, account: Account
    ) -> None:
        account.withdraw(usd(5), posting(TransactionKind.WITHDRAWAL, '=HYPERLINK("x"), "y"'))
        post(account, *[1] * BATCH)
        await store(transactor, account)

        answer = await client.get(
            f"/accounts/{account.id}/transactions.csv", headers=by(account.user_id)
        )

        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="transactions.csv"'
        assert answer.headers["cache-control"] == "no-store"
        rows = list(csv.DictReader(answer.text.splitlines()))
        assert [int(row["position"]) for row in rows] == list(range(BATCH + 3, 0, -1))
        withdrawn = rows[-3]
        del withdrawn["id"]
        assert withdrawn == {
            "position": "3",
            "occurred_at": "2026-01-02T03:04:05Z",
            "kind": "withdrawal",
            "delta": "-0.05",
            "balance_after": "14.95",
            "currency": "USD",
            "description": '\'=HYPERLINK("x"), "y"',
        }


class TestABalance:
    async def test_is_that_of_the_time_that_is_asked_for(
        self, client: httpx.AsyncClient, account: Account
    ) -> None:
        path = f"/accounts/{account.id}/balance"
        before = {"at": (NOW - timedelta(seconds=1)).isoformat()}

        now_ = await client.get(path, headers=by(account.user_id))
        then = await client.get(path, params=before, headers=by(account.user_id))

        assert now_.json() == {
            "account_id": str(account.id),
            "currency": "USD",
            "at": "2026-01-02T03:04:05Z",
            "balance": "15.00",
        }
        assert (then.json()["at"], then.json()["balance"]) == ("2026-01-02T03:04:04Z", "0.00")

    @pytest.mark.parametrize("at", ["2026-01-02T03:04:06Z", "2026-01-02T03:04:04", "yesterday"])
    async def test_at_a_time_to_come_or_of_no_zone_is_refused(
        self, client: httpx.AsyncClient, account: Account, at: str
    ) -> None:
        answer = await client.get(
            f"/accounts/{account.id}/balance", params={"at": at}, headers=by(account.user_id)
        )

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")
        assert [each["field"] for each in answer.json()["errors"]] == ["at"]
