from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, SecretStr

from chassis.domain import DomainError, Kind
from chassis.persistence.idempotency_keys import IdempotencyKeys
from chassis.testing import InMemoryIdempotencyKeys
from chassis.web.auth import Principal
from chassis.web.idempotency import IdempotentCommand, idempotent
from tests.unit.chassis.conftest import Serve
from tests.unit.chassis.persistence.idempotency_keys_suite import IdempotencyKeysSuite

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
T = TypeVar("T")


class TestInMemoryIdempotencyKeys(IdempotencyKeysSuite):
    @pytest.fixture
    def keys(self) -> IdempotencyKeys:
        return InMemoryIdempotencyKeys()


@dataclass
class Toys:
    """A unit of work over a dictionary."""

    idempotency_keys: IdempotencyKeys = field(default_factory=InMemoryIdempotencyKeys)
    sold: list[str] = field(default_factory=list)

    async def flush(self) -> None:
        """Nothing is buffered."""


class SoldOut(DomainError):
    kind, code = Kind.CONFLICT, "sold-out"


class Order(BaseModel):
    toy: str


class Shop:
    """A shop with one POST route, its clock, and the toys that it sold."""

    def __init__(self) -> None:
        self.work = Toys()
        self.now = NOW
        self.sold_out = False
        self.status = 201
        self.secret = "s" * 32

    async def transact(self, body: Callable[[Toys], Awaitable[T]], /) -> T:
        return await body(self.work)

    async def sell(self, work: Toys, toy: str) -> int:
        if self.sold_out:
            raise SoldOut("Come back tomorrow.")
        work.sold.append(toy)
        return len(work.sold)

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/shops")
        idempotent_in_shop = idempotent(
            self.transact,
            secret=SecretStr(self.secret),
            now=lambda: self.now,
            principal=principal_of_the_header,
        )

        @router.post("/{shop}/orders", status_code=201)
        async def post_order(
            shop: int,
            order: Order,
            once: Annotated[IdempotentCommand[Toys], Depends(idempotent_in_shop)],
        ) -> Response:
            return await once(
                lambda work: self.sell(work, order.toy),
                answer=lambda number: JSONResponse(
                    {"number": number}, self.status, {"Location": f"/shops/{shop}/orders/{number}"}
                ),
            )

        return router


async def principal_of_the_header(
    x_who: Annotated[int | None, Header()] = None,
) -> Principal | None:
    return None if x_who is None else Principal(UUID(int=x_who))


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def order(
    client: httpx.AsyncClient,
    key: str | None,
    *,
    toy: str = "bear",
    path: str = "/shops/1/orders",
    who: int | None = None,
) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    if who is not None:
        headers["X-Who"] = str(who)
    return await client.post(path, json={"toy": toy}, headers=headers)


class TestAnIdempotentCommand:
    async def test_a_repeat_gets_the_first_answer_and_changes_nothing(
        self, serve: Serve, shop: Shop
    ) -> None:
        async with serve(shop.routes()) as client:
            first = await order(client, "key-1")
            again = await order(client, "key-1")

        assert shop.work.sold == ["bear"]
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.content == again.content == b'{"number":1}'
        assert first.headers["location"] == again.headers["location"] == "/shops/1/orders/1"
        assert first.headers["content-type"] == again.headers["content-type"]
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert first.headers["x-request-id"] != again.headers["x-request-id"]

    @pytest.mark.parametrize("who", [1, None])
    async def test_is_recognised_at_each_step_in_which_the_secret_is_changed(
        self, serve: Serve, shop: Shop, who: int | None
    ) -> None:
        old, new = "o" * 32, "n" * 32
        for number, (before, after) in enumerate(
            [(old, f"{old},{new}"), (f"{old},{new}", f"{new},{old}"), (f"{new},{old}", new)], 1
        ):
            # Processes with the former and with the next value run side by side.
            for one, other in [(before, after), (after, before)]:
                key, answers = f"key-{number}-{one}", []
                for shop.secret in (one, other):
                    async with serve(shop.routes()) as client:
                        answers.append(await order(client, key, who=who))
                assert [each.status_code for each in answers] == [201, 201]
                assert answers[0].json() == answers[1].json()

    async def test_another_body_under_the_key_is_refused(self, serve: Serve, shop: Shop) -> None:
        async with serve(shop.routes()) as client:
            await order(client, "key-1", who=1)
            other = await order(client, "key-1", toy="doll", who=1)

        assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
        assert shop.work.sold == ["bear"]

    async def test_without_a_token_another_body_is_another_request_so_nobody_takes_a_key_first(
        self, serve: Serve, shop: Shop
    ) -> None:
        async with serve(shop.routes()) as client:
            taken = await order(client, "guessed", toy="doll")
            first = await order(client, "guessed")
            again = await order(client, "guessed")

        assert [each.json() for each in (taken, first, again)] == [
            {"number": 1},
            {"number": 2},
            {"number": 2},
        ]
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"

    async def test_another_path_of_the_same_route_is_another_request(
        self, serve: Serve, shop: Shop
    ) -> None:
        async with serve(shop.routes()) as client:
            await order(client, "key-1", who=1)
            other = await order(client, "key-1", path="/shops/2/orders", who=1)

        assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")

    async def test_without_a_key_every_request_is_carried_out(
        self, serve: Serve, shop: Shop
    ) -> None:
        async with serve(shop.routes()) as client:
            await order(client, None)
            await order(client, None)

        assert shop.work.sold == ["bear", "bear"]

    async def test_each_principal_has_its_own_keys(self, serve: Serve, shop: Shop) -> None:
        async with serve(shop.routes()) as client:
            answers = [await order(client, "key-1", who=who) for who in (1, 2, None)]

        assert [answer.json()["number"] for answer in answers] == [1, 2, 3]

    async def test_a_key_expires_after_24_hours(self, serve: Serve, shop: Shop) -> None:
        async with serve(shop.routes()) as client:
            await order(client, "key-1", who=1)
            shop.now = NOW + timedelta(hours=24) - timedelta(microseconds=1)
            just_before = await order(client, "key-1", who=1)
            shop.now = NOW + timedelta(hours=24)
            after = await order(client, "key-1", toy="doll", who=1)

        assert just_before.json() == {"number": 1}
        assert after.json() == {"number": 2}

    async def test_a_refusal_is_not_stored(self, serve: Serve, shop: Shop) -> None:
        shop.sold_out = True
        async with serve(shop.routes()) as client:
            refused = await order(client, "key-1")
            shop.sold_out = False
            sold = await order(client, "key-1")

        assert (refused.status_code, sold.status_code) == (409, 201)

    async def test_an_answer_that_is_no_success_is_not_stored(
        self, serve: Serve, shop: Shop
    ) -> None:
        shop.status = 303
        async with serve(shop.routes()) as client:
            await order(client, "key-1")
            shop.status = 201
            again = await order(client, "key-1")

        assert again.status_code == 201
        assert shop.work.sold == ["bear", "bear"]

    @pytest.mark.parametrize("key", ["", "x" * 256, "with space", "umlaut-ä"])
    async def test_an_invalid_key_is_refused(self, serve: Serve, shop: Shop, key: str) -> None:
        async with serve(shop.routes()) as client:
            answer = await client.post(
                "/shops/1/orders",
                json={"toy": "bear"},
                headers=[(b"Idempotency-Key", key.encode())],
            )

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")
        assert answer.json()["errors"][0]["field"] == "Idempotency-Key"

    @pytest.mark.parametrize("key", ["x", "x" * 255, '"8e03978e-40d5"', "!~"])
    async def test_a_valid_key_is_accepted(self, serve: Serve, shop: Shop, key: str) -> None:
        async with serve(shop.routes()) as client:
            assert (await order(client, key)).status_code == 201

    async def test_the_header_is_documented(self, serve: Serve, shop: Shop) -> None:
        async with serve(shop.routes()) as client:
            document = (await client.get("/openapi.json")).json()

        parameters = document["paths"]["/shops/{shop}/orders"]["post"]["parameters"]
        assert "Idempotency-Key" in [parameter["name"] for parameter in parameters]
