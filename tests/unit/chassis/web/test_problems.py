import ssl
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar

import asyncpg
import httpx
import pytest
from fastapi import APIRouter, Header, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import text

from chassis.domain import BrokenField, DomainError, InvalidFields, Kind
from chassis.persistence.database import Database, NoConnectionFree
from chassis.web import problems
from tests.unit.chassis.conftest import Logged, Serve


class ToyBody(BaseModel):
    name: str = Field(min_length=3)
    price: int


def refused(refusal: type[DomainError] | DomainError) -> APIRouter:
    return failing(refusal if isinstance(refusal, DomainError) else refusal("Not this one."))


def failing(error: Exception) -> APIRouter:
    router = APIRouter()

    @router.get("/toys")
    async def get_toys() -> None:
        raise error

    return router


def toys() -> APIRouter:
    router = APIRouter()

    @router.post("/toys/{number}")
    async def post_toy(
        number: int, body: ToyBody, x_color: Annotated[int | None, Header()] = None
    ) -> str:
        return body.name

    @router.delete("/toys/{number}")
    async def delete_toy(number: int) -> None:
        pass

    return router


def refusal(kind_: Kind) -> type[DomainError]:
    class Refusal(DomainError):
        kind, code = kind_, "no-such-luck"

    return Refusal


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem of this answer, and check that it is complete."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"]
    assert body["title"]
    assert body["correlation_id"] == answer.headers["x-correlation-id"]
    return body


class TestDomainErrors:
    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            (Kind.INVALID, 422),
            (Kind.UNAUTHENTICATED, 401),
            (Kind.FORBIDDEN, 403),
            (Kind.NOT_FOUND, 404),
            (Kind.CONFLICT, 409),
            (Kind.TOO_MANY, 429),
            (Kind.UNAVAILABLE, 503),
        ],
    )
    async def test_each_kind_has_its_status(self, serve: Serve, kind: Kind, status: int) -> None:
        async with serve(refused(refusal(kind))) as client:
            answer = await client.get("/toys")

        assert problem_of(answer, status, "no-such-luck")["detail"] == "Not this one."

    def test_every_kind_has_a_status(self) -> None:
        assert set(problems._STATUS) == set(Kind)

    async def test_an_unauthenticated_client_learns_how_to_authenticate(self, serve: Serve) -> None:
        async with serve(refused(refusal(Kind.UNAUTHENTICATED))) as client:
            answer = await client.get("/toys")

        assert answer.headers["www-authenticate"] == "Bearer"

    async def test_a_client_that_asks_too_often_learns_when_to_retry(self, serve: Serve) -> None:
        class TooMany(DomainError):
            kind, code = Kind.TOO_MANY, "too-many"
            retry_after_s: ClassVar[float] = 2.1

        async with serve(refused(TooMany)) as client:
            answer = await client.get("/toys")

        assert answer.headers["retry-after"] == "3"

    async def test_every_broken_field_of_a_command_is_named(self, serve: Serve) -> None:
        broken = InvalidFields(
            BrokenField("name", "too-short", "has 3 characters or more"),
            BrokenField("price", "negative", "is 0 or more"),
        )

        async with serve(refused(broken)) as client:
            answer = await client.get("/toys")

        assert problem_of(answer, 422, "invalid-fields")["errors"] == [
            {"field": "name", "code": "too-short", "message": "has 3 characters or more"},
            {"field": "price", "code": "negative", "message": "is 0 or more"},
        ]


class TestRequests:
    async def test_every_broken_field_is_named_without_its_value(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            answer = await client.post(
                "/toys/hunter2",
                json={"name": "ab", "price": "hunter2"},
                headers={"x-color": "hunter2"},
            )

        body = problem_of(answer, 422, "invalid-fields")
        assert sorted(each["field"] for each in body["errors"]) == [
            "name",
            "number",
            "price",
            "x-color",
        ]
        assert {each["code"] for each in body["errors"]} == {"string-too-short", "int-parsing"}
        assert "hunter2" not in answer.text

    async def test_a_missing_body_is_named(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            answer = await client.post("/toys/1")

        assert problem_of(answer, 422, "invalid-fields")["errors"] == [
            {"field": "body", "code": "missing", "message": "Field required"}
        ]

    @pytest.mark.parametrize("body", [b"{", b'{"name": "hunter2"', b"\xff\xfe"])
    async def test_a_body_that_is_not_json_is_a_bad_request(
        self, serve: Serve, body: bytes
    ) -> None:
        async with serve(toys()) as client:
            answer = await client.post(
                "/toys/1", content=body, headers={"content-type": "application/json"}
            )

        assert answer.status_code == 400
        assert problem_of(answer, 400, answer.json()["code"])["code"] in {
            "malformed-json",
            "bad-request",
        }
        assert "hunter2" not in answer.text

    async def test_an_unknown_path_is_a_problem(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            problem_of(await client.get("/nowhere"), 404, "not-found")

    async def test_a_wrong_method_is_answered_with_all_right_ones(self, serve: Serve) -> None:
        async with serve(toys()) as client:
            answer = await client.put("/toys/1")

        problem_of(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "DELETE, POST"

    async def test_an_http_exception_keeps_its_headers(self, serve: Serve) -> None:
        error = HTTPException(418, "short and stout", headers={"X-Pot": "tea"})
        async with serve(failing(error)) as client:
            answer = await client.get("/toys")

        assert problem_of(answer, 418, "http-418")["detail"] == "short and stout"
        assert answer.headers["x-pot"] == "tea"


class TestLargeBodies:
    async def test_a_body_that_is_announced_too_large_is_not_read(self, serve: Serve) -> None:
        read = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            read = True
            yield b"x" * 101

        async with serve(toys(), max_body_bytes=100) as client:
            answer = await client.post("/toys/1", content=body(), headers={"Content-Length": "101"})

        problem_of(answer, 413, "body-too-large")
        assert not read

    async def test_a_body_that_grows_too_large_is_refused(self, serve: Serve) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(11):
                yield b"0123456789"

        async with serve(toys(), max_body_bytes=100) as client:
            answer = await client.post("/toys/1", content=chunks())

        problem_of(answer, 413, "body-too-large")

    async def test_a_body_of_exactly_the_largest_size_is_accepted(self, serve: Serve) -> None:
        body = b'{"name": "bear", "price": 1}'
        async with serve(toys(), max_body_bytes=len(body)) as client:
            answer = await client.post(
                "/toys/1", content=body, headers={"content-type": "application/json"}
            )

        assert answer.json() == "bear"


class TestFailures:
    async def test_an_unexpected_error_is_logged_in_full_and_answered_without_detail(
        self, serve: Serve, logged: Logged
    ) -> None:
        async with serve(failing(RuntimeError("hunter2"))) as client:
            answer = await client.get("/toys")

        body = problem_of(answer, 500, "unexpected-error")
        assert "detail" not in body
        assert "hunter2" not in answer.text
        (line,) = (line for line in logged if line["event"] == "unexpected error")
        assert str(line["exc_info"]) == "hunter2"

    @pytest.mark.parametrize(
        "error",
        [
            ConnectionRefusedError(111, "refused"),
            OSError("Multiple exceptions"),
            ssl.SSLCertVerificationError("certificate verify failed"),
            TimeoutError(),
            NoConnectionFree("no connection in time"),
            asyncpg.TooManyConnectionsError("sorry"),
            asyncpg.CannotConnectNowError("the database system is starting up"),
        ],
    )
    async def test_an_error_of_the_network_is_temporary(
        self, serve: Serve, error: Exception
    ) -> None:
        async with serve(failing(error)) as client:
            answer = await client.get("/toys")

        problem_of(answer, 503, "temporarily-unavailable")
        assert int(answer.headers["retry-after"]) > 0

    async def test_a_database_that_is_away_is_temporary(self, serve: Serve) -> None:
        engine = Database(
            "postgresql://nobody@127.0.0.1:1/nothing", pool_size=1, application_name="test"
        )
        router = APIRouter()

        @router.get("/toys")
        async def get_toys() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

        async with serve(router) as client:
            answer = await client.get("/toys")

        problem_of(answer, 503, "temporarily-unavailable")

    async def test_a_transaction_that_kept_conflicting_is_temporary(self, serve: Serve) -> None:
        error = asyncpg.SerializationError("could not serialize access")
        async with serve(failing(error)) as client:
            answer = await client.get("/toys")

        problem_of(answer, 503, "temporarily-unavailable")

    async def test_a_missing_file_is_an_unexpected_error(self, serve: Serve) -> None:
        async with serve(failing(FileNotFoundError(2, "no such file"))) as client:
            answer = await client.get("/toys")

        problem_of(answer, 500, "unexpected-error")
