import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Send

from services import FORWARDED

from .toys import SECRET, Toy, connection, gateway, never, respond, serving, until


def arrived(response: httpx.Response, name: str) -> list[str]:
    """The values under this name in the request that reached the service."""
    return [value for each, value in response.json()["headers"] if each == name]


async def ask_raw(client: httpx.AsyncClient, target: str) -> bytes:
    """Request a target that HTTP clients refuse to send, and return the answer's bytes."""
    async with connection(client) as (reader, writer):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()


class TestARequest:
    async def test_reaches_its_service_with_query_and_body(self, client: httpx.AsyncClient) -> None:
        response = await client.post(
            "/users?a=1&a=%2F+%23&b",
            content=b'{"username": "ann"}',
            headers={"Idempotency-Key": "k"},
        )

        request = response.json()
        assert (request["method"], request["path"]) == ("POST", "/users")
        assert request["query"] == "a=1&a=%2F+%23&b"
        assert request["body"] == '{"username": "ann"}'
        assert arrived(response, "idempotency-key") == ["k"]
        assert arrived(response, "content-length") == ["19"]

    async def test_of_an_operator_reaches_the_services_own_path(self, users_url: str) -> None:
        async with gateway(operators=True, users_url=users_url) as client:
            response = await client.post("/ops/users/parked/0190-a/release?b=1", json={"why": "x"})

        request = response.json()
        assert (request["method"], request["path"]) == ("POST", "/ops/parked/0190-a/release")
        assert (request["query"], request["body"]) == ("b=1", '{"why":"x"}')

    async def test_without_a_body_has_none_there_either(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/users/me")

        assert arrived(response, "content-length") == []
        assert arrived(response, "transfer-encoding") == []

    async def test_in_chunks_arrives_whole_under_one_framing(
        self, client: httpx.AsyncClient
    ) -> None:
        async def chunks() -> Any:
            for piece in (b"one,", b"two,", b"three"):
                yield piece

        response = await client.post("/users", content=chunks())

        assert response.json()["body"] == "one,two,three"
        framings = arrived(response, "content-length") + arrived(response, "transfer-encoding")
        assert len(framings) == 1

    async def test_is_addressed_to_the_service(
        self, client: httpx.AsyncClient, users_url: str
    ) -> None:
        response = await client.get("/users/me")

        assert arrived(response, "host") == [users_url.removeprefix("http://")]
        assert arrived(response, "x-forwarded-host") == [client.base_url.netloc.decode()]

    async def test_has_one_correlation_id_at_the_service_and_in_the_answer(
        self, client: httpx.AsyncClient
    ) -> None:
        made = await client.get("/users/me")
        sent = await client.get("/users/me", headers={"X-Request-ID": "mine"})

        for each in (made, sent):
            ours = each.headers.get_list("x-request-id")
            assert arrived(each, "x-correlation-id") == arrived(each, "x-request-id") == ours
            assert ours == [each.headers["x-correlation-id"]] != ["mine"]
        assert sent.headers["x-client-correlation-id"] == "mine"

    async def test_in_absolute_form_reaches_its_service(self, client: httpx.AsyncClient) -> None:
        answer = await ask_raw(client, "http://shop.example/users/me")

        assert answer.startswith(b"HTTP/1.1 200")
        assert b'["x-forwarded-host", "shop.example"]' in answer

    async def test_with_a_fragment_in_its_query_keeps_it_as_part_of_the_query(
        self, client: httpx.AsyncClient
    ) -> None:
        answer = await ask_raw(client, "/users/me?a=#b")

        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"query": "a=%23b"' in answer

    async def test_keeps_its_header_values_and_none_of_them_breaks_it(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await client.get(
            "/users/me", headers=[(b"X-Name", "Zoë".encode()), (b"X-Bytes", b"\xff")]
        )

        assert [name.encode("latin-1").decode() for name in arrived(response, "x-name")] == ["Zoë"]
        assert len(arrived(response, "x-bytes")) == 1

    @pytest.mark.parametrize("path", ["/users/me", "/health/live", "/openapi.json", "/docs"])
    async def test_of_the_head_is_answered_as_one_for_the_whole_without_the_body(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        whole = await client.get(path)

        head = await client.head(path)

        assert (head.status_code, head.content) == (200, b"")
        assert head.headers.keys() == whole.headers.keys()

    async def test_of_the_head_does_not_wait_for_a_body_that_the_service_streams(
        self, client: httpx.AsyncClient, users: Toy
    ) -> None:
        async def begin(request: Request, send: Send) -> None:
            await respond(send, 200, b"first", more_body=True)
            await never(request, send)

        users.answer = begin

        head = await client.head("/users/me")

        assert (head.status_code, head.content) == (200, b"")
        await until(lambda: users.in_flight == 0)

    async def test_has_no_field_that_its_client_did_not_send(
        self, client: httpx.AsyncClient
    ) -> None:
        async with connection(client) as (reader, writer):
            writer.write(b"POST /users HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
            answer = await reader.read()

        request = json.loads(answer.partition(b"\r\n\r\n")[2])
        names = {name for name, _ in request["headers"]}
        assert names.isdisjoint({"user-agent", "accept", "accept-encoding", "content-type"})


class TestTheClientsAddress:
    async def test_is_the_one_that_the_gateway_sees_and_not_the_one_that_the_client_claims(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await client.get(
            "/users/me",
            headers={"X-Forwarded-For": "198.51.100.9", "X-Forwarded-Proto": "https"},
        )

        assert arrived(response, "x-forwarded-for") == ["127.0.0.1"]
        assert arrived(response, "x-forwarded-proto") == ["http"]

    async def test_is_taken_from_a_trusted_proxy(self, users_url: str) -> None:
        async with gateway(users_url=users_url, trusted_proxies="127.0.0.1") as client:
            response = await client.get(
                "/users/me",
                headers={"X-Forwarded-For": "6.6.6.6, 198.51.100.9", "X-Forwarded-Proto": "https"},
            )

        assert arrived(response, "x-forwarded-for") == ["198.51.100.9"]
        assert arrived(response, "x-forwarded-proto") == ["https"]


class TestTheGatewaysSecret:
    async def test_is_sent_to_the_users_service_only(self, users_url: str) -> None:
        async with (
            serving(Toy()) as accounts_url,
            gateway(users_url=users_url, accounts_url=accounts_url) as client,
        ):
            of_users = await client.get("/users/me", headers={"X-Gateway-Secret": "guess"})
            of_accounts = await client.get("/accounts/1", headers={"X-Gateway-Secret": "guess"})

        assert arrived(of_users, "x-gateway-secret") == [SECRET]
        assert arrived(of_accounts, "x-gateway-secret") == []

    async def test_does_not_come_back_from_a_service_that_repeats_it(
        self, users: Toy, client: httpx.AsyncClient
    ) -> None:
        users.answer = lambda request, send: respond(
            send, 200, b"", (b"X-Gateway-Secret", request.headers["x-gateway-secret"].encode())
        )

        response = await client.get("/users/me")

        assert "x-gateway-secret" not in response.headers


class TestAnAnswer:
    async def test_is_forwarded_unchanged(self, users: Toy, client: httpx.AsyncClient) -> None:
        users.answer = lambda _, send: respond(
            send, 201, b"made", (b"Location", b"/users/7"), (b"Content-Type", b"text/plain")
        )

        response = await client.post("/users")

        assert (response.status_code, response.content) == (201, b"made")
        assert response.headers["location"] == "/users/7"
        assert response.headers.get_list("content-type") == ["text/plain"]
        assert len(response.headers.get_list("date")) == 1

    async def test_that_is_a_redirect_is_not_followed_by_the_gateway(
        self, users: Toy, client: httpx.AsyncClient
    ) -> None:
        users.answer = lambda _, send: respond(send, 307, b"", (b"Location", b"/metrics"))

        response = await client.get("/users/me")

        assert (response.status_code, response.headers["location"]) == (307, "/metrics")
        assert users.requests == ["GET /users/me"]

    async def test_of_a_service_that_is_unavailable_is_passed_on(
        self, users: Toy, client: httpx.AsyncClient
    ) -> None:
        users.answer = lambda _, send: respond(send, 503, b"later", (b"Retry-After", b"2"))

        response = await client.get("/users/me")

        assert (response.status_code, response.content) == (503, b"later")
        assert response.headers["retry-after"] == "2"

    async def test_without_a_body_has_none(self, users: Toy, client: httpx.AsyncClient) -> None:
        users.answer = lambda _, send: respond(send, 204, b"")

        response = await client.post("/users")

        assert (response.status_code, response.content) == (204, b"")

    async def test_that_is_compressed_stays_compressed(
        self, users: Toy, client: httpx.AsyncClient
    ) -> None:
        compressed = bytes.fromhex("1f8b0800000000000003cbc8040086a6106c02000000")
        users.answer = lambda _, send: respond(
            send, 200, compressed, (b"Content-Encoding", b"gzip")
        )

        async with client.stream("GET", "/users/me") as response:
            raw = b"".join([chunk async for chunk in response.aiter_raw()])

        assert raw == compressed

    async def test_sets_cookies_at_its_own_client_only(
        self, users: Toy, client: httpx.AsyncClient, users_url: str
    ) -> None:
        users.answer = lambda _, send: respond(send, 200, b"", (b"Set-Cookie", b"session=ann"))
        await client.get("/users/me")

        client.cookies.clear()
        users.answer = Toy().answer
        response = await client.get("/users/me")

        assert arrived(response, "cookie") == []


NOWHERE = [
    "/ops/parked",
    "/ops/users/parked",
    "/ops/users%2Fparked",
    "/audit/events",
    "/notifications/deliveries",
    "/metrics",
    "/users/me/../../metrics",
    "/users/%2e%2e/account",
    "/accounts/%2e%2e",
    "/accounts/..",
    "/accounts/.",
    "/accounts/%2E%2e%2Fmetrics",
    "/accounts/1%2f..%2f..%2fmetrics",
    "/accounts/",
    "//users/me",
    "/users//me",
    "/users/me/",
    "/Users/me",
    "http://127.0.0.1/metrics",
    "http://ann@127.0.0.1/users/me",
    "ftp://127.0.0.1/users/me",
    "*",
]


class TestWhatIsNotPublic:
    async def test_is_not_found_however_it_is_written(self, users: Toy, users_url: str) -> None:
        async with gateway(users_url=users_url, accounts_url=users_url) as client:
            answers = {path: await ask_raw(client, path) for path in NOWHERE}

        assert [path for path, answer in answers.items() if b" 404 " not in answer] == []
        assert users.requests == []

    async def test_an_odd_segment_is_taken_as_an_id(self, client: httpx.AsyncClient) -> None:
        paths = [
            (await client.get(path)).json()["path"]
            for path in ("/users/me;x", "/users/me%00", "/users/a%3Fb")
        ]

        assert paths == ["/users/me%3Bx", "/users/me%00", "/users/a%3Fb"]

    async def test_an_encoded_slash_is_a_slash_and_its_path_must_be_public(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await client.get("/users/me%2Ftasks")

        assert response.json()["path"] == "/users/me/tasks"

    async def test_an_encoded_percent_sign_is_not_decoded_twice(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await client.get("/users/%252e%252e")

        assert response.json()["path"] == "/users/%252e%252e"

    @pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/docs"])
    async def test_pages_about_the_process_are_the_gateways_own(
        self, client: httpx.AsyncClient, users: Toy, path: str
    ) -> None:
        response = await client.get(path)

        assert response.status_code == 200
        assert users.requests == []

    async def test_another_method_is_not_allowed(
        self, client: httpx.AsyncClient, users: Toy
    ) -> None:
        response = await client.delete("/users/me")

        assert response.status_code == 405
        assert response.json()["code"] == "method-not-allowed"
        assert users.requests == []

    async def test_the_front_page_is_the_api_page(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/")

        assert (response.status_code, response.headers["location"]) == (307, "/docs")


class TestTheListenerForOperators:
    async def test_has_what_needs_an_operator_and_a_way_to_sign_in_and_nothing_else(
        self, users: Toy, users_url: str
    ) -> None:
        urls: dict[str, Any] = {f"{service.identifier}_url": users_url for service in FORWARDED}
        async with gateway(operators=True, **urls) as client:
            reached = [
                (await client.request(method, path)).status_code
                for method, path in [
                    ("GET", "/audit/events"),
                    ("GET", "/ops/accounts/parked"),
                    ("POST", "/auth/token"),
                    ("GET", "/metrics"),
                    ("GET", "/docs"),
                ]
            ]
            nowhere = [
                (await client.request(method, path)).status_code
                for method, path in [("POST", "/users"), ("GET", "/users/me")]
            ]

        assert reached == [200] * 5
        assert nowhere == [404] * 2
        assert users.requests == ["GET /audit/events", "GET /ops/parked", "POST /auth/token"]


class TestThePublicListener:
    async def test_does_not_say_why_it_is_not_ready(self, users_url: str) -> None:
        async with gateway(users_url=users_url) as client:
            response = await client.get("/health/ready")

        assert response.json() == {"status": "ready"}

    async def test_has_no_document_where_a_setting_says_so(self, users_url: str) -> None:
        async with gateway(users_url=users_url, public_document=False) as client:
            paths = ["/openapi.json", "/docs", "/docs/assets/favicon.png", "/"]
            statuses = [(await client.get(path)).status_code for path in paths]

        assert statuses == [404] * 4


class TestManyAtOnce:
    async def test_each_gets_its_own_answer(self, client: httpx.AsyncClient) -> None:
        async def ask(number: int) -> str:
            response = await client.post("/users", content=str(number).encode())
            body: str = response.json()["body"]
            return body

        answers = await asyncio.gather(*(ask(number) for number in range(100)))

        assert answers == [str(number) for number in range(100)]
