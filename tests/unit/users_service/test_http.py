import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import Message

from chassis.correlation import new_id
from chassis.testing import Clock
from chassis.web.app import create_app
from chassis.web.auth import TokenVerifier, authenticated
from chassis.web.health import Health
from chassis.web.idempotency import idempotent
from contracts.events import family_of
from users_service.adapters.access_tokens import SignedAccessTokens
from users_service.adapters.in_memory import (
    InMemoryKnownNetworks,
    InMemoryRecentAttempts,
    InMemoryTransactor,
    InMemoryViews,
    PlainHasher,
)
from users_service.adapters.signing_keys import SigningKeys, add_key
from users_service.application.ports import PerNetwork
from users_service.application.sign_in import SignInHandler, SignInLimits
from users_service.application.sign_up import SignUpHandler, SignUpLimit
from users_service.domain.errors import TooManyHashes
from users_service.domain.user import Role
from users_service.entrypoints.client_network import client_network
from users_service.entrypoints.http import routes
from users_service.entrypoints.sign_in_log import SignInLog
from users_service.settings import UsersSettings

from .people import NOW, a_task
from .ports_suite import store

GATEWAY_SECRET = "g" * 32
KATE = {"username": "Kate", "email": "Kate@Example.com", "password": "correct horse"}


async def not_recorded(*_read: object) -> None: ...


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def transactor(clock: Clock) -> InMemoryTransactor:
    return InMemoryTransactor(clock)


@pytest.fixture
async def app(tmp_path: Path, clock: Clock, transactor: InMemoryTransactor) -> FastAPI:
    settings = UsersSettings(
        database_url=SecretStr("postgresql://users@127.0.0.1:1/users"),
        idempotency_secret=SecretStr("s" * 32),
        gateway_secret=SecretStr(GATEWAY_SECRET),
        sign_in_secret=SecretStr("i" * 32),
        keys_dir=tmp_path,
    )
    add_key(tmp_path, new_id())
    views, hasher = InMemoryViews(transactor), PlainHasher()
    keys = SigningKeys(tmp_path, published_ahead=timedelta(), now=clock)
    verifier = TokenVerifier(
        keys.published,
        issuer="users",
        audience="onboarding",
        lifetime=timedelta(minutes=15),
        now=clock,
    )
    await verifier._refresh()
    router = routes(
        sign_up=SignUpHandler(new_id, clock),
        sign_up_limit=SignUpLimit(
            InMemoryRecentAttempts(), PerNetwork(8, 80), timedelta(minutes=5), clock
        ),
        sign_in=SignInHandler(
            views=views,
            hasher=hasher,
            tokens=SignedAccessTokens(
                keys, issuer="users", audience="onboarding", lifetime=timedelta(minutes=15)
            ),
            attempts=InMemoryRecentAttempts(),
            known_networks=InMemoryKnownNetworks(kept=timedelta(days=30)),
            limits=SignInLimits(
                per_name=3,
                per_name_everywhere=9,
                per_network=PerNetwork(5, 50),
                at_once=PerNetwork(2, 4),
                window=timedelta(minutes=5),
            ),
            transact=transactor,
            now=clock,
        ),
        views=views,
        hasher=hasher,
        published_keys=keys.published,
        once=idempotent(transactor, secret=settings.idempotency_secret, now=clock),
        signed_in=authenticated(verifier, not_recorded),
        client_network=client_network(settings.gateway_secret),
        sign_in_log=SignInLog(settings.sign_in_secret),
    )
    return create_app(
        title="Users",
        description="Users",
        version="1",
        settings=settings,
        routers=[router],
        health=Health(),
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1234))
    with structlog.testing.capture_logs():
        async with httpx.AsyncClient(transport=transport, base_url="http://users") as client:
            yield client


async def sign_in_as(client: httpx.AsyncClient, name: str) -> httpx.Response:
    """Sign in with Kate's password."""
    form = {"username": name, "password": KATE["password"]}
    return await client.post("/auth/token", data=form)


async def sign_in(client: httpx.AsyncClient, name: str = "kate") -> dict[str, str]:
    """Sign in with Kate's password; return the header that authenticates."""
    answer = await sign_in_as(client, name)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


class TestPostUser:
    async def test_a_new_user_gets_their_location(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/users", json=KATE)

        assert answer.status_code == 201
        assert answer.json() == {"id": answer.json()["id"], "username": "kate"}
        assert answer.headers["Location"] == f"/users/{answer.json()['id']}"
        profile = await client.get(answer.headers["Location"], headers=await sign_in(client))
        assert profile.json()["email"] == "kate@example.com"

    async def test_the_sign_up_is_published_in_the_same_transaction(
        self, client: httpx.AsyncClient, transactor: InMemoryTransactor
    ) -> None:
        answer = await client.post("/users", json=KATE, headers={"X-Request-ID": "request-1"})

        row = transactor.stored.outbox[0]
        assert (row["aggregatetype"], row["sequence"]) == ("users.user", 1)
        assert family_of(row["type"]) == "users.user-signed-up"
        assert row["aggregateid"] == answer.json()["id"]
        assert b'"correlationid":"request-1"' in row["payload"]
        assert b"example.com" not in row["payload"]

    @pytest.mark.parametrize(
        ("body", "broken"),
        [
            ({}, {"username": "missing", "email": "missing", "password": "missing"}),
            (
                {"username": "k", "email": "no", "password": "short", "alias": "!"},
                {
                    "username": "invalid-username",
                    "email": "invalid-email",
                    "password": "invalid-password",
                    "alias": "invalid-alias",
                },
            ),
            (
                {"username": 7, "password": "x" * 1025, "alias": ["kate"]},
                {
                    "username": "string-type",
                    "email": "missing",
                    "password": "invalid-password",
                    "alias": "string-type",
                },
            ),
            (KATE | {"password": "Password1"}, {"password": "password-is-common"}),
            (KATE | {"password": "kate@example.com"}, {"password": "password-is-known"}),
            (
                {"username": "Kate.Adams", "email": "no", "password": "kate.adams"},
                {"email": "invalid-email", "password": "password-is-known"},
            ),
        ],
    )
    async def test_one_answer_names_every_invalid_field(
        self, client: httpx.AsyncClient, body: dict[str, Any], broken: dict[str, str]
    ) -> None:
        answer = await client.post("/users", json=body)

        assert answer.status_code == 422
        assert answer.json()["code"] == "invalid-fields"
        assert {each["field"]: each["code"] for each in answer.json()["errors"]} == broken
        assert "short" not in answer.text.replace("shorter", "")

    async def test_a_taken_username_is_refused(self, client: httpx.AsyncClient) -> None:
        await client.post("/users", json=KATE)

        answer = await client.post("/users", json=KATE | {"email": "other@example.com"})

        assert (answer.status_code, answer.json()["code"]) == (409, "username-is-taken")

    async def test_a_taken_email_address_is_refused(self, client: httpx.AsyncClient) -> None:
        await client.post("/users", json=KATE)

        answer = await client.post("/users", json=KATE | {"username": "other"})

        assert (answer.status_code, answer.json()["code"]) == (409, "email-is-taken")

    async def test_the_same_key_and_body_get_the_first_answer_again(
        self, client: httpx.AsyncClient, transactor: InMemoryTransactor
    ) -> None:
        first, again = [
            await client.post("/users", json=KATE, headers={"Idempotency-Key": "k1"})
            for _ in range(2)
        ]

        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Idempotency-Replayed"] == "true"
        assert len(transactor.stored.users) == 1

    async def test_a_key_that_someone_else_guessed_first_is_still_free(
        self, client: httpx.AsyncClient
    ) -> None:
        key = {"Idempotency-Key": "k1"}
        guessed = {"username": "joe", "email": "joe@example.com", "password": "battery staple"}
        await client.post("/users", json=guessed, headers=key)

        answer = await client.post("/users", json=KATE, headers=key)

        assert (answer.status_code, answer.json()["username"]) == (201, "kate")

    async def test_a_refusal_is_not_stored_under_the_key(self, client: httpx.AsyncClient) -> None:
        await client.post("/users", json=KATE)
        other = KATE | {"email": "other@example.com"}
        key = {"Idempotency-Key": "k1"}
        assert (await client.post("/users", json=other, headers=key)).status_code == 409

        corrected = other | {"username": "joe"}
        answer = await client.post("/users", json=corrected, headers=key)

        assert answer.status_code == 201


class TestTextsThatAreLongOrOdd:
    """As long as a body may be: whatever they hold, they cost little before they are refused."""

    @pytest.mark.parametrize(
        "text",
        [
            "a" * 60_000,
            "a" + "\u0345" * 15_000 + "\u0334" * 15_000,
            " " * 60_000,
            "a@" + "a-" * 30_000,
            "@" * 60_000,
        ],
        ids=["long", "marks", "spaces", "address", "at"],
    )
    @pytest.mark.parametrize("path", ["/users", "/auth/token"])
    async def test_take_little_of_the_processor(
        self, client: httpx.AsyncClient, path: str, text: str
    ) -> None:
        for field in ("username", "email", "password"):
            fields = KATE | {field: text}
            as_json, as_form = (fields, None) if path == "/users" else (None, fields)
            began = time.process_time()

            answer = await client.post(path, json=as_json, data=as_form)

            assert answer.status_code in (401, 413, 422)
            assert time.process_time() - began < 0.5

    async def test_that_are_nested_deeply_are_no_json(self, client: httpx.AsyncClient) -> None:
        json_of = {"Content-Type": "application/json"}

        answer = await client.post("/users", content=b"[" * 60_000, headers=json_of)

        assert answer.status_code == 400


class TestABodyInParts:
    async def test_is_refused_before_it_is_decoded_as_its_client_says(
        self, client: httpx.AsyncClient
    ) -> None:
        head = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n'
        kind = "multipart/form-data; boundary=x; charset=punycode"
        began = time.process_time()

        answer = await client.post(
            "/auth/token",
            content=head + b"A" * 60_000 + b"\r\n--x--\r\n",
            headers={"Content-Type": kind},
        )

        assert answer.status_code == 415
        assert time.process_time() - began < 0.2


class TestTooManySignUps:
    async def test_from_one_network_are_refused_whatever_became_of_those_before(
        self, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        statuses = [(await client.post("/users", json=KATE)).status_code for _ in range(8)]
        refused = await client.post("/users", json=KATE)
        clock.advance(timedelta(minutes=5))
        later = await client.post("/users", json=KATE)

        assert statuses == [201] + [409] * 7
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-sign-ups")
        assert refused.headers["Retry-After"] == "300"
        assert later.status_code == 409

    async def test_from_one_network_leave_the_others_alone(self, client: httpx.AsyncClient) -> None:
        for _ in range(9):
            await client.post("/users", json=KATE)
        elsewhere = {"X-Forwarded-For": "192.0.2.2", "X-Gateway-Secret": GATEWAY_SECRET}

        answer = await client.post("/users", json=KATE, headers=elsewhere)

        assert answer.json()["code"] == "username-is-taken"

    async def test_are_hashed_at_once_and_one_that_is_refused_for_it_does_not_count(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as busy:
            busy.setattr(PlainHasher, "hash", refuse)
            codes = [(await client.post("/users", json=KATE)).json()["code"] for _ in range(9)]

        assert codes == ["too-many-hashes"] * 9
        assert (await client.post("/users", json=KATE)).status_code == 201


async def refuse(*_: object) -> None:
    raise TooManyHashes


class TestAClientThatLeaves:
    @pytest.mark.parametrize(
        ("path", "content_type", "body", "slow"),
        [
            ("/users", "application/json", json.dumps(KATE), "hash"),
            (
                "/auth/token",
                "application/x-www-form-urlencoded",
                "username=kate&password=correct+horse",
                "verify",
            ),
        ],
    )
    async def test_has_the_password_not_hashed_that_waits_for_its_turn(
        self,
        app: FastAPI,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        content_type: str,
        body: str,
        slow: str,
    ) -> None:
        waits, turn, hashed = asyncio.Event(), asyncio.Event(), []
        sent = [{"type": "http.request", "body": body.encode()}]

        async def wait_and_hash(*_: object) -> None:
            waits.set()
            await turn.wait()
            hashed.append(path)

        async def receive() -> Message:
            if sent:
                return sent.pop()
            await waits.wait()
            return {"type": "http.disconnect"}

        async def send(_: Message) -> None:
            turn.set()

        monkeypatch.setattr(PlainHasher, slow, wait_and_hash)
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"content-type", content_type.encode())],
            "client": ("192.0.2.1", 1234),
        }
        async with asyncio.timeout(30):
            await app(scope, receive, send)

        assert turn.is_set()
        assert hashed == []


class TestPostToken:
    async def test_the_answer_has_the_form_of_oauth2(self, client: httpx.AsyncClient) -> None:
        await client.post("/users", json=KATE)

        answer = await client.post(
            "/auth/token",
            data={"grant_type": "password", "username": "KATE", "password": "correct horse"},
        )

        assert answer.status_code == 200
        assert answer.json() == {
            "access_token": answer.json()["access_token"],
            "token_type": "bearer",
            "expires_in": 900,
        }
        assert answer.headers["Cache-Control"] == "no-store"

    async def test_an_unknown_name_and_a_wrong_password_get_the_same_answer(
        self, client: httpx.AsyncClient
    ) -> None:
        await client.post("/users", json=KATE)
        request_id = {"X-Request-ID": "request-1"}

        unknown, wrong = [
            await client.post(
                "/auth/token", data={"username": n, "password": p}, headers=request_id
            )
            for n, p in (("unknown", "correct horse"), ("kate", "wrong horse"))
        ]

        assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong-credentials")
        assert (unknown.status_code, unknown.content) == (wrong.status_code, wrong.content)
        assert unknown.headers == wrong.headers

    async def test_one_attempt_too_many_gets_the_time_to_wait(
        self, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        form = {"username": "kate", "password": "wrong horse"}
        for _ in range(3):
            await client.post("/auth/token", data=form)
        clock.advance(timedelta(seconds=0.5))

        answer = await client.post("/auth/token", data=form)

        assert (answer.status_code, answer.json()["code"]) == (429, "too-many-sign-ins")
        assert answer.headers["Retry-After"] == "300"

    async def test_a_forwarded_address_counts_only_from_the_gateway(
        self, client: httpx.AsyncClient
    ) -> None:
        async def try_from(address: str, number: int, **headers: str) -> int:
            form = {"username": f"name-{number}", "password": "wrong horse"}
            forwarded = {"X-Forwarded-For": address} | headers
            return (await client.post("/auth/token", data=form, headers=forwarded)).status_code

        pretended = [await try_from(f"198.51.100.{n}", n) for n in range(6)]
        gateway = {"X-Gateway-Secret": GATEWAY_SECRET}
        forwarded = [await try_from(f"198.51.100.{n}", n + 10, **gateway) for n in range(6)]

        assert pretended == [401] * 5 + [429]
        assert forwarded == [401] * 6

    async def test_a_form_without_a_password_is_refused(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/auth/token", data={"username": "kate"})

        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "password")


class TestTheSecurityLog:
    async def test_tells_of_each_attempt_to_sign_in_and_names_nobody(
        self, client: httpx.AsyncClient
    ) -> None:
        user_id = (await client.post("/users", json=KATE)).json()["id"]
        wrong = {"username": KATE["email"], "password": "hunter2-hunter2"}

        with structlog.testing.capture_logs() as lines:
            await sign_in(client)
            for _ in range(4):
                await client.post("/auth/token", data=wrong)
            await sign_in_as(client, f" {KATE['username'].upper()} ")

        about = [each for each in lines if str(each["event"]).startswith("sign-in")]
        assert [each["event"] for each in about] == [
            "sign-in-succeeded",
            *["sign-in-refused"] * 3,
            "sign-in-limited",
            "sign-in-limited",
        ]
        assert about[0]["user_id"] == user_id
        assert {each["network"] for each in about} == {"192.0.2.1"}
        by_name, *by_address, by_name_again = [each["name_fingerprint"] for each in about]
        assert len(set(by_address)) == 1
        assert by_name == by_name_again != by_address[0]
        told = str(about)
        assert [each for each in (*KATE.values(), wrong["password"]) if each in told] == []


class TestGetKeys:
    async def test_anyone_may_have_and_keep_them(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/.well-known/jwks.json")

        assert answer.headers["Cache-Control"] == "public, max-age=60"
        (key,) = answer.json()["keys"]
        assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
        assert "d" not in key


class TestGetMe:
    async def test_it_shows_the_signed_in_user(self, client: httpx.AsyncClient) -> None:
        signed_up = await client.post("/users", json=KATE | {"alias": "Katie"})

        answer = await client.get("/users/me", headers=await sign_in(client))

        assert answer.json() == {
            "id": signed_up.json()["id"],
            "username": "kate",
            "email": "kate@example.com",
            "alias": "katie",
            "roles": [],
            "created_at": "2026-01-02T03:04:05Z",
        }

    @pytest.mark.parametrize(
        "path", ["/users/me", "/users/me/tasks", "/users/01890a5d-ac96-774b-bcce-b302099a8057"]
    )
    async def test_without_a_token_it_answers_401(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        answer = await client.get(path)

        assert (answer.status_code, answer.json()["code"]) == (401, "not-authenticated")

    async def test_an_expired_token_is_refused(
        self, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        await client.post("/users", json=KATE)
        headers = await sign_in(client)
        clock.advance(timedelta(minutes=16))

        answer = await client.get("/users/me", headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (401, "token-expired")


class TestGetUser:
    async def test_another_user_is_not_found(self, client: httpx.AsyncClient) -> None:
        kate = await client.post("/users", json=KATE)
        joe = KATE | {"username": "joe", "email": "joe@example.com"}
        await client.post("/users", json=joe)

        headers = await sign_in(client, "joe")

        for location in (kate.headers["Location"], f"/users/{new_id()}"):
            answer = await client.get(location, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "user-not-found")

    async def test_an_operator_sees_every_user(
        self, client: httpx.AsyncClient, transactor: InMemoryTransactor
    ) -> None:
        kate = await client.post("/users", json=KATE)
        root = await client.post("/users", json=KATE | {"username": "root", "email": "root@local"})
        for user in transactor.stored.users.values():
            if str(user.id) == root.json()["id"]:
                user.roles = frozenset({Role.OPERATOR})
        headers = await sign_in(client, "root")

        seen = await client.get(kate.headers["Location"], headers=headers)
        missing = await client.get(f"/users/{new_id()}", headers=headers)

        assert seen.json()["username"] == "kate"
        assert (missing.status_code, missing.json()["code"]) == (404, "user-not-found")


class TestGetMyTasks:
    async def test_they_are_listed_newest_first_in_pages(
        self, client: httpx.AsyncClient, transactor: InMemoryTransactor
    ) -> None:
        await client.post("/users", json=KATE)
        (kate,) = transactor.stored.users.values()
        tasks = [a_task(kate.id, f"task {number}") for number in range(3)]
        await store(transactor, *tasks)
        headers = await sign_in(client)

        first = (await client.get("/users/me/tasks?limit=2", headers=headers)).json()
        second = (
            await client.get(f"/users/me/tasks?limit=2&before={first['next']}", headers=headers)
        ).json()

        assert [task["name"] for task in first["tasks"]] == ["task 2", "task 1"]
        assert second == {
            "tasks": [
                {
                    "id": str(tasks[0].id),
                    "name": "task 0",
                    "created_at": NOW.isoformat().replace("+00:00", "Z"),
                }
            ],
            "next": None,
        }

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "before=yesterday"])
    async def test_a_parameter_out_of_bounds_is_refused(
        self, client: httpx.AsyncClient, query: str
    ) -> None:
        await client.post("/users", json=KATE)

        answer = await client.get(f"/users/me/tasks?{query}", headers=await sign_in(client))

        assert answer.status_code == 422


class TestOpenApi:
    async def test_it_describes_the_fields_of_a_sign_up(self, client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()

        body = document["components"]["schemas"]["SignUpBody"]
        assert body["required"] == ["username", "email", "password"]
        assert body["properties"]["username"]["maxLength"] == 15
        assert body["properties"]["password"]["format"] == "password"
        assert "201" in document["paths"]["/users"]["post"]["responses"]
