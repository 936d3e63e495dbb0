"""Every route of both API documents: who may use it, and the header fields of each answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local_cluster.testing import RunningCluster
from tests.e2e.people import Operator, Person, poll

pytestmark = pytest.mark.xdist_group("e2e")

#: What needs no token, and what anyone may keep of it.
OPEN = {
    ("POST", "/users"): "no-store",
    ("POST", "/auth/token"): "no-store",
    ("GET", "/.well-known/jwks.json"): "public, max-age=60",
}
PAGES = ("/", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css", "/health/live", "/nowhere")


@dataclass(frozen=True, slots=True)
class Route:
    """An operation of a document.

    ``parameters`` are the types of those in its path, ``statuses`` those that are documented.
    """

    method: str
    path: str
    parameters: Mapping[str, str]
    statuses: frozenset[str]

    @property
    def is_open(self) -> bool:
        return (self.method, self.path) in OPEN

    def path_with(self, known: Mapping[str, str]) -> str:
        """The path about these, and for the other parameters about nothing that exists."""
        unknown = {
            name: "999999999" if kind == "integer" else str(uuid4())
            for name, kind in self.parameters.items()
        }
        return self.path.format_map({**unknown, **known})


async def routes_of(gateway: httpx.AsyncClient, listener: str) -> list[Route]:
    async def document() -> dict[str, Any]:
        answer = await gateway.get(f"{listener}/openapi.json")
        found: dict[str, Any] = answer.json()
        return found

    whole = await poll(document, lambda found: not found["x-missing-services"])
    return list(_routes(whole))


def _routes(document: dict[str, Any]) -> Iterator[Route]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parameters = {
                each["name"]: each["schema"]["type"]
                for each in operation.get("parameters", ())
                if each["in"] == "path"
            }
            yield Route(method.upper(), path, parameters, frozenset(operation["responses"]))


def bodies_of(account_id: str) -> Mapping[tuple[str, str], dict[str, Any]]:
    """What a valid request about an account sends: who may is asked of valid ones only."""
    payment = {"to_account": str(uuid4()), "amount": "1", "description": "A test"}
    return {
        ("POST", "/accounts/{account_id}/transactions"): {
            "kind": "deposit",
            "amount": "1",
            "description": "A test",
        },
        ("POST", "/transfers"): payment | {"from_account": account_id},
        ("POST", "/holds"): payment | {"account": account_id, "expires_in": 60},
        ("POST", "/holds/{hold_id}/capture"): {},
    }


def assert_safe(answer: httpx.Response, route: Route | None = None) -> None:
    """A browser does no more with this answer than is meant, and no cache keeps it.

    And the page shows no answer as undocumented.
    """
    where = (answer.request.method, answer.request.url)
    assert route is None or str(answer.status_code) in route.statuses, (where, answer.text)
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff", where
    assert headers["referrer-policy"] == "no-referrer", where
    assert "frame-ancestors 'none'" in headers["content-security-policy"], where
    kept = "private, no-cache" if "etag" in headers else "no-store"
    if route is not None and answer.is_success:
        kept = OPEN.get((route.method, route.path), kept)
    assert headers.get_list("cache-control") == [kept], where


async def answer_to(
    gateway: httpx.AsyncClient, method: str, path: str, **options: Any
) -> httpx.Response:
    """Return the answer, and of a stream the first event."""
    async with gateway.stream(method, path, **options) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
            return answer
        first = await anext(answer.aiter_raw())
        return httpx.Response(
            answer.status_code, headers=answer.headers, content=first, request=answer.request
        )


def told(answer: httpx.Response) -> tuple[str, str | None]:
    """Return what a user is given: in the body, or in a cookie."""
    return answer.text, answer.headers.get("set-cookie")


class TestEveryRoute:
    async def test_without_a_token_is_refused_unless_it_is_listed_here(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient
    ) -> None:
        asked = set()
        for listener in (cluster.gateway_url, cluster.operators_url):
            for route in await routes_of(gateway, listener):
                answer = await gateway.request(route.method, listener + route.path_with({}))
                assert_safe(answer, route)
                assert (answer.status_code == 401) is not route.is_open, route
                asked.add((route.method, route.path))

        assert asked >= OPEN.keys()

    async def test_of_a_person_is_closed_to_others(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        owner, stranger = Person(gateway), Person(gateway)
        await owner.sign_up()
        await stranger.sign_up()
        account = await poll(lambda: operator.account_of(owner))
        assert account is not None
        of_owner, of_stranger = await owner.sign_in(), await stranger.sign_in()

        async def task() -> str | None:
            page = (await gateway.get("/users/me/tasks", headers=of_owner)).json()
            return page["tasks"][0]["id"] if page["tasks"] else None

        known = {
            "user_id": owner.id,
            "account_id": account["id"],
            "task_id": await poll(task) or "",
            "hold_id": await self.held_for(gateway, operator, account["id"]),
        }
        bodies = bodies_of(account["id"])
        routes = [r for r in await routes_of(gateway, cluster.gateway_url) if not r.is_open]

        for route in routes:
            assert route.parameters.keys() <= known.keys(), "say here what a person has of it"
            path = route.path_with(known)
            body = bodies.get((route.method, route.path))
            allowed = await answer_to(gateway, route.method, path, json=body, headers=of_owner)
            other = await answer_to(gateway, route.method, path, json=body, headers=of_stranger)
            assert_safe(allowed, route)
            assert_safe(other, route)
            # One that needed an operator would be at the wrong listener.
            assert allowed.status_code not in (401, 403, 404), route
            if route.parameters:
                assert other.status_code in (403, 404), route
            else:
                assert told(allowed) != told(other), route
        assert len(routes) > 4

    async def held_for(
        self, gateway: httpx.AsyncClient, operator: Operator, payee_account: str
    ) -> str:
        """The id of a hold that someone else placed."""
        payer = Person(gateway)
        await payer.sign_up()
        account = await poll(lambda: operator.account_of(payer))
        assert account is not None
        headers = await payer.sign_in()
        paid_in = {"kind": "deposit", "amount": "5", "description": "First money"}
        await gateway.post(f"/accounts/{account['id']}/transactions", json=paid_in, headers=headers)
        hold = bodies_of(account["id"])["POST", "/holds"] | {"to_account": payee_account}
        placed = await gateway.post("/holds", json=hold, headers=headers)
        id_: str = placed.json()["hold"]["id"]
        return id_

    async def test_of_the_operators_listener_is_closed_to_users_and_not_on_the_public_one(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        person = Person(gateway)
        await person.sign_up()
        of_person = await person.sign_in()
        routes = [r for r in await routes_of(gateway, cluster.operators_url) if not r.is_open]

        for route in routes:
            path = route.path_with({})
            url = cluster.operators_url + path
            refused = await gateway.request(route.method, url, headers=of_person)
            assert_safe(refused, route)
            assert (refused.status_code, refused.json()["code"]) == (403, "operators-only"), route
            public = await gateway.request(route.method, path, headers=operator.headers)
            assert public.status_code == 404, route
            if route.method == "GET":
                allowed = await gateway.get(url, headers=operator.headers)
                assert_safe(allowed, route)
                assert allowed.status_code not in (401, 403), route
        assert len(routes) > 50

    async def test_beside_them_every_page_is_as_safe(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient
    ) -> None:
        for listener in (cluster.gateway_url, cluster.operators_url):
            for path in PAGES:
                assert_safe(await gateway.get(listener + path))
