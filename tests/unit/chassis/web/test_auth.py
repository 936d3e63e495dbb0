import asyncio
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from chassis.correlation import new_id
from chassis.web import auth
from chassis.web.auth import (
    OPERATOR,
    SIGNING_ALGORITHM,
    TOKEN_TYPE,
    AccessToken,
    NotAuthenticated,
    Principal,
    TokenExpired,
    TokenVerifier,
    authenticated,
    operator,
)
from chassis.web.problems import TemporarilyUnavailable
from chassis.web.security_log import mark_reading
from tests.unit.chassis.conftest import Logged, Serve, until

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIFETIME_S = 600.0
ANN = Principal(UUID(int=17), frozenset())
OPAL = Principal(UUID(int=18), frozenset({OPERATOR}))


class Publisher:
    """The users service's published keys, which a test can take away."""

    def __init__(self) -> None:
        self.keys = [new_key("first")]
        self.away = False
        self.fetches = 0

    async def __call__(self) -> Mapping[str, Any]:
        self.fetches += 1
        if self.away:
            raise ConnectionRefusedError
        return {"keys": [key.as_dict(private=False) for key in self.keys]}


def new_key(kid: str) -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid, "use": "sig", "alg": SIGNING_ALGORITHM})


def signed(
    key: OKPKey,
    principal: Principal = ANN,
    *,
    header: Mapping[str, object] | None = None,
    claims: Mapping[str, object] | None = None,
) -> str:
    token = AccessToken(
        id=new_id(), principal=principal, issued_at=NOW, lifetime=timedelta(minutes=10)
    )
    given = token.claims(issuer="users", audience="onboarding") | dict(claims or {})
    return jwt.encode(
        {"alg": SIGNING_ALGORITHM, "typ": TOKEN_TYPE, "kid": key.kid, **(header or {})},
        {name: value for name, value in given.items() if value is not None},
        key,
        algorithms=[SIGNING_ALGORITHM],
    )


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Seconds:
    """Seconds that pass when a test lets them."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def verifier(publisher: Publisher, clock: Clock, seconds: Seconds) -> TokenVerifier:
    return TokenVerifier(
        publisher,
        issuer="users",
        audience="onboarding",
        lifetime=timedelta(seconds=LIFETIME_S),
        now=clock,
        monotonic=seconds,
    )


@asynccontextmanager
async def running(verifier: TokenVerifier) -> Any:
    """Run the verifier while the block runs, which begins when it has keys."""
    run = asyncio.create_task(verifier.run())
    await until(lambda: verifier.trouble() is None)
    yield
    await verifier.stop()
    await run


class TestVerifying:
    async def test_a_token_has_the_principal_and_its_roles(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        async with running(verifier):
            principal = await verifier.verify(signed(publisher.keys[0], OPAL))

        assert principal == OPAL

    async def test_it_is_valid_for_5_seconds_longer_than_its_lifetime(
        self, verifier: TokenVerifier, publisher: Publisher, clock: Clock
    ) -> None:
        token = signed(publisher.keys[0])
        async with running(verifier):
            clock.at = NOW + timedelta(minutes=10, seconds=4)
            await verifier.verify(token)
            clock.at += timedelta(seconds=1)

            with pytest.raises(TokenExpired):
                await verifier.verify(token)

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "another"},
            {"aud": "something"},
            {"sub": "no uuid"},
            {"iat": int(NOW.timestamp()) + 6},
            {"exp": "tomorrow"},
            {"iss": None},
            {"aud": None},
            {"sub": None},
            {"iat": None},
            {"exp": None},
            {"jti": None},
            {"roles": "operator"},
            {"roles": None},
        ],
        ids=str,
    )
    async def test_a_token_with_a_wrong_or_missing_claim_is_refused(
        self, verifier: TokenVerifier, publisher: Publisher, claims: dict[str, object]
    ) -> None:
        async with running(verifier):
            with pytest.raises(NotAuthenticated):
                await verifier.verify(signed(publisher.keys[0], claims=claims))

    async def test_a_forged_signature_is_refused(self, verifier: TokenVerifier) -> None:
        async with running(verifier):
            with pytest.raises(NotAuthenticated):
                await verifier.verify(signed(new_key("first")))

    async def test_another_kind_of_token_is_refused(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        async with running(verifier):
            with pytest.raises(NotAuthenticated):
                await verifier.verify(signed(publisher.keys[0], header={"typ": "JWT"}))

    async def test_an_unsigned_token_is_refused(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        _, claims, _ = signed(publisher.keys[0]).split(".")
        unsigned = f"eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{claims}."
        async with running(verifier):
            with pytest.raises(NotAuthenticated):
                await verifier.verify(unsigned)

    async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        public = publisher.keys[0].as_pem(private=False)
        token = jwt.encode(
            {"alg": "HS256", "typ": TOKEN_TYPE, "kid": "first"},
            AccessToken(
                id=new_id(), principal=OPAL, issued_at=NOW, lifetime=timedelta(minutes=1)
            ).claims(issuer="users", audience="onboarding"),
            OctKey.import_key(public.replace(b"-----", b"")),
            algorithms=["HS256"],
        )
        async with running(verifier):
            with pytest.raises(NotAuthenticated):
                await verifier.verify(token)

    @pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.b.c", "x" * 5000])
    async def test_text_that_is_not_a_token_is_refused(
        self, verifier: TokenVerifier, token: str
    ) -> None:
        async with running(verifier):
            with pytest.raises(NotAuthenticated):
                await verifier.verify(token)


class TestKeys:
    async def test_before_the_first_keys_it_is_not_ready_and_refuses_no_token_as_invalid(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        assert verifier.gates_readiness
        assert verifier.trouble() == "no keys"
        with pytest.raises(TemporarilyUnavailable):
            await verifier.verify(signed(publisher.keys[0]))

    async def test_a_rotated_key_is_found_without_a_restart(
        self, verifier: TokenVerifier, publisher: Publisher, seconds: Seconds
    ) -> None:
        async with running(verifier):
            publisher.keys.append(new_key("second"))
            seconds.at += 3

            assert await verifier.verify(signed(publisher.keys[1])) == ANN
            assert await verifier.verify(signed(publisher.keys[0])) == ANN

    async def test_tokens_under_unknown_keys_do_not_make_it_fetch_each_time(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        async with running(verifier):
            for _ in range(20):
                with pytest.raises(NotAuthenticated):
                    await verifier.verify(signed(new_key("unknown")))

        assert publisher.fetches == 1

    async def test_keys_stay_valid_while_their_publisher_is_away(
        self, verifier: TokenVerifier, publisher: Publisher, seconds: Seconds
    ) -> None:
        async with running(verifier):
            publisher.away = True
            seconds.at += 3
            with pytest.raises(NotAuthenticated):
                await verifier.verify(signed(new_key("unknown")))

            assert await verifier.verify(signed(publisher.keys[0])) == ANN
            assert verifier.trouble() is None

    async def test_are_not_believed_for_longer_than_a_token_is_valid_while_nobody_confirms_them(
        self,
        verifier: TokenVerifier,
        publisher: Publisher,
        seconds: Seconds,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(auth, "_RETRY_S", 0)
        token = signed(publisher.keys[0])
        async with running(verifier):
            publisher.away = True
            seconds.at += LIFETIME_S
            await verifier._refresh()
            still_valid = await verifier.verify(token)

            seconds.at += 1
            trouble = verifier.trouble()
            with pytest.raises(TemporarilyUnavailable):
                await verifier.verify(token)
            publisher.away = False
            await verifier._refresh()

            assert still_valid == await verifier.verify(token) == ANN
            assert trouble == "keys not confirmed for 600 s"

    async def test_that_the_publisher_confirms_are_believed_for_longer(
        self, verifier: TokenVerifier, publisher: Publisher, seconds: Seconds
    ) -> None:
        async with running(verifier):
            for _ in range(3):
                seconds.at += LIFETIME_S
                await verifier._refresh()

            assert await verifier.verify(signed(publisher.keys[0])) == ANN

    async def test_that_the_publisher_leaves_out_end_with_its_answer(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        withdrawn = signed(publisher.keys[0])
        async with running(verifier):
            publisher.keys = [new_key("second")]
            await verifier._refresh()

            with pytest.raises(NotAuthenticated):
                await verifier.verify(withdrawn)

    async def test_when_all_are_left_out_no_token_is_verified(
        self, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        withdrawn = signed(publisher.keys[0])
        async with running(verifier):
            publisher.keys = []
            await verifier._refresh()

            with pytest.raises(TemporarilyUnavailable):
                await verifier.verify(withdrawn)

    async def test_it_retries_until_there_are_keys(
        self, verifier: TokenVerifier, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(auth, "_RETRY_S", 0)
        publisher.away = True
        run = asyncio.create_task(verifier.run())
        await until(lambda: publisher.fetches > 2)
        publisher.away = False
        await until(lambda: verifier.trouble() is None)
        await verifier.stop()
        await run


Read = tuple[UUID, str, Sequence[str]]


def routes(verifier: TokenVerifier, reads: list[Read] | None = None) -> APIRouter:
    """Return some routes.

    :param reads: what operators read is added to it; None: nothing can be recorded
    """
    router = APIRouter()

    async def record(by: UUID, route: str, ids: Sequence[str]) -> None:
        if reads is None:
            raise ConnectionRefusedError
        reads.append((by, route, ids))

    signed_in, operators = authenticated(verifier, record), operator(verifier, record)

    @router.get("/me")
    async def get_me(who: Annotated[Principal, Depends(signed_in)]) -> UUID:
        return who.id

    @router.get("/ops")
    async def get_ops(who: Annotated[Principal, Depends(operators)]) -> UUID:
        return who.id

    @router.get("/things/{thing_id}", name="get_thing")
    @router.post("/things/{thing_id}", name="post_thing")
    async def thing(thing_id: str, who: Annotated[Principal, Depends(signed_in)]) -> str:
        return thing_id

    async def try_out(who: Annotated[Principal, Depends(operators)]) -> UUID:
        return who.id

    async def count(who: Annotated[Principal, Depends(operators)]) -> UUID:
        return who.id

    mark_reading(try_out, of_people=True)
    mark_reading(count, of_people=False)
    router.post("/ops/try-out")(try_out)
    router.get("/ops/count")(count)
    return router


def security_lines(logged: Logged) -> list[Mapping[str, Any]]:
    return [
        each for each in logged if str(each["event"]).startswith(("operator-", "access-refused"))
    ]


class TestTheSecurityLog:
    @pytest.mark.parametrize(
        ("method", "event"), [("GET", "operator-read"), ("POST", "operator-acted")]
    )
    async def test_has_a_line_for_what_an_operator_asks_for_with_the_ids_that_are_named(
        self,
        serve: Serve,
        verifier: TokenVerifier,
        publisher: Publisher,
        logged: Logged,
        method: str,
        event: str,
    ) -> None:
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], OPAL)}"}
        thing, whose = str(UUID(int=7)), str(UUID(int=8))
        async with serve(routes(verifier, [])) as client, running(verifier):
            await client.request(
                method, f"/things/{thing}?subject={whose}&by=ada", headers=authorization
            )

        assert security_lines(logged) == [
            {
                "event": event,
                "log_level": "info",
                "subject": str(OPAL.id),
                "method": method,
                "route": "/things/{thing_id}",
                "object": [thing, whose],
            }
        ]

    @pytest.mark.parametrize(
        ("path", "objects"),
        [
            (f"/things/{UUID(int=7).hex}", [str(UUID(int=7))]),
            (f"/things/urn:uuid:{UUID(int=7)}", [str(UUID(int=7))]),
            ("/things/+7.0", ["7"]),
            (f"/me?subject={UUID(int=1)}&subject={UUID(int=2)}", [str(UUID(int=2))]),
            ("/me?" + "&".join(f"p{n}={UUID(int=n)}" for n in range(9)),
             [str(UUID(int=n)) for n in range(8)]),
        ],
    )  # fmt: skip
    async def test_has_ids_in_one_form_and_few_of_them(
        self,
        serve: Serve,
        verifier: TokenVerifier,
        publisher: Publisher,
        logged: Logged,
        path: str,
        objects: list[str],
    ) -> None:
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], OPAL)}"}
        async with serve(routes(verifier, [])) as client, running(verifier):
            await client.get(path, headers=authorization)

        [line] = security_lines(logged)
        assert line["object"] == objects

    async def test_has_a_line_for_what_a_token_does_not_allow(
        self, serve: Serve, verifier: TokenVerifier, publisher: Publisher, logged: Logged
    ) -> None:
        ann = Principal(UUID(int=9))
        anns = {"Authorization": f"Bearer {signed(publisher.keys[0], ann)}"}
        forged = {"Authorization": "Bearer hunter2"}
        async with serve(routes(verifier, [])) as client, running(verifier):
            answers = [
                await client.get("/things/ada@example.com"),
                await client.get("/ops", headers=forged),
                await client.get("/ops", headers=anns),
            ]

        assert [each.status_code for each in answers] == [401, 401, 403]
        lines = security_lines(logged)
        assert [(line["code"], line["subject"], line["route"]) for line in lines] == [
            ("not-authenticated", None, "/things/{thing_id}"),
            ("not-authenticated", None, "/ops"),
            ("operators-only", str(ann.id), "/ops"),
        ]
        assert "ada" not in str(lines)
        assert "hunter2" not in str(lines)

    async def test_has_no_text_of_a_client_that_is_no_id(
        self, serve: Serve, verifier: TokenVerifier, publisher: Publisher, logged: Logged
    ) -> None:
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], OPAL)}"}
        async with serve(routes(verifier, [])) as client, running(verifier):
            await client.get("/things/ada@example.com?ada=bob", headers=authorization)

        [line] = security_lines(logged)
        assert line["object"] == []
        assert "ada" not in str(line)

    async def test_has_no_line_for_others(
        self, serve: Serve, verifier: TokenVerifier, publisher: Publisher, logged: Logged
    ) -> None:
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], ANN)}"}
        async with serve(routes(verifier, [])) as client, running(verifier):
            await client.get("/me", headers=authorization)

        assert security_lines(logged) == []


class TestWhatAnOperatorReads:
    @pytest.mark.parametrize(
        ("method", "path", "route", "ids"),
        [
            ("GET", f"/things/{ANN.id}", "/things/{thing_id}", [str(ANN.id)]),
            ("HEAD", f"/things/{ANN.id}", "/things/{thing_id}", [str(ANN.id)]),
            ("GET", "/things/ada@example.com", "/things/{thing_id}", []),
            ("GET", f"/ops?subject={OPAL.id}&by=ada", "/ops", [str(OPAL.id)]),
            ("POST", "/ops/try-out", "/ops/try-out", []),
        ],
    )
    async def test_of_others_is_recorded_with_ids_only(
        self,
        serve: Serve,
        verifier: TokenVerifier,
        publisher: Publisher,
        method: str,
        path: str,
        route: str,
        ids: list[str],
    ) -> None:
        reads: list[Read] = []
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], OPAL)}"}
        async with serve(routes(verifier, reads)) as client, running(verifier):
            answer = await client.request(method, path, headers=authorization)

        assert answer.status_code == 200
        assert reads == [(OPAL.id, route, ids)]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/me"),
            ("GET", f"/things/{OPAL.id}"),
            ("POST", f"/things/{ANN.id}"),
            ("GET", "/ops/count"),
        ],
    )
    async def test_of_their_own_or_about_nobody_is_not_recorded_and_neither_is_an_act(
        self,
        serve: Serve,
        verifier: TokenVerifier,
        publisher: Publisher,
        method: str,
        path: str,
    ) -> None:
        reads: list[Read] = []
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], OPAL)}"}
        async with serve(routes(verifier, reads)) as client, running(verifier):
            answer = await client.request(method, path, headers=authorization)

        assert answer.status_code == 200
        assert reads == []

    async def test_is_not_answered_if_it_can_not_be_recorded(
        self, serve: Serve, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], OPAL)}"}
        paths = (f"/things/{ANN.id}", "/ops")
        async with serve(routes(verifier)) as client, running(verifier):
            answers = [await client.get(path, headers=authorization) for path in paths]

        assert [each.status_code for each in answers] == [503, 503]
        assert [str(ANN.id) in each.text for each in answers] == [False, False]

    async def test_is_not_recorded_of_others(
        self, serve: Serve, verifier: TokenVerifier, publisher: Publisher
    ) -> None:
        reads: list[Read] = []
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], ANN)}"}
        async with serve(routes(verifier, reads)) as client, running(verifier):
            await client.get(f"/things/{OPAL.id}", headers=authorization)
            await client.get("/ops", headers=authorization)

        assert reads == []


class TestDependencies:
    @pytest.mark.parametrize("path", ["/me", "/ops"])
    async def test_a_request_without_a_token_is_asked_to_authenticate(
        self, serve: Serve, verifier: TokenVerifier, path: str
    ) -> None:
        async with serve(routes(verifier, [])) as client:
            answer = await client.get(path)

        assert answer.status_code == 401
        assert answer.json()["code"] == "not-authenticated"
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        ("principal", "path", "status"),
        [(ANN, "/me", 200), (ANN, "/ops", 403), (OPAL, "/me", 200), (OPAL, "/ops", 200)],
    )
    async def test_only_operators_may_call_operators_routes(
        self,
        serve: Serve,
        verifier: TokenVerifier,
        publisher: Publisher,
        principal: Principal,
        path: str,
        status: int,
    ) -> None:
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0], principal)}"}
        async with serve(routes(verifier, [])) as client, running(verifier):
            answer = await client.get(path, headers=authorization)

        assert answer.status_code == status
        assert answer.json() == str(principal.id) or answer.json()["code"] == "operators-only"

    async def test_an_expired_token_has_its_own_code(
        self, serve: Serve, verifier: TokenVerifier, publisher: Publisher, clock: Clock
    ) -> None:
        authorization = {"Authorization": f"Bearer {signed(publisher.keys[0])}"}
        clock.at += timedelta(hours=1)
        async with serve(routes(verifier, [])) as client, running(verifier):
            answer = await client.get("/me", headers=authorization)

        assert (answer.status_code, answer.json()["code"]) == (401, "token-expired")

    async def test_the_documentation_page_can_authorise(
        self, serve: Serve, verifier: TokenVerifier
    ) -> None:
        async with serve(routes(verifier, [])) as client:
            document = (await client.get("/openapi.json")).json()

        (scheme,) = document["components"]["securitySchemes"].values()
        assert scheme["flows"]["password"]["tokenUrl"] == "/auth/token"
