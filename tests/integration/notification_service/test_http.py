"""Operators look at deliveries over HTTP, on PostgreSQL."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.auth import OPERATOR, NotAuthenticated, OperatorsOnly, Principal
from chassis.health import Health
from chassis.http import create_app
from notification_service.http import routes
from notification_service.queries import ListDeliveries
from notification_service.settings import NotificationSettings
from tests.unit.notification_service.delivery_queue_suite import claim
from tests.unit.notification_service.making import after, planned

from .test_postgres_deliveries import PostgresBench


async def somebody_who_may() -> Principal:
    return Principal(UUID(int=1), frozenset({OPERATOR}))


def app(engine: AsyncEngine, an_operator: Any = somebody_who_may) -> FastAPI:
    settings = NotificationSettings(
        environment="development",
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
        jwks_url="http://127.0.0.1:1/jwks.json",
        idempotency_secret=SecretStr("s" * 32),
    )
    return create_app(
        title="Notification",
        description="For tests.",
        version="1",
        settings=settings,
        routers=[routes(ListDeliveries(engine), an_operator)],
        health=Health(),
    )


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://notification")


@pytest.fixture
async def client(engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app(engine)) as client:
        yield client


@pytest.fixture
def bench(engine: AsyncEngine) -> PostgresBench:
    return PostgresBench(engine)


async def page(client: httpx.AsyncClient, **search: object) -> dict[str, Any]:
    answer = await client.get(
        "/notifications/deliveries", params={k: str(v) for k, v in search.items()}
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def found(client: httpx.AsyncClient, **search: object) -> list[str]:
    return [each["id"] for each in (await page(client, **search))["deliveries"]]


class TestASearch:
    async def test_shows_how_far_a_delivery_has_come(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        delivery = planned()
        await bench.plan(delivery)
        (claimed,) = await claim(bench)
        await bench.queue.sent(claimed, "17.000001", after(1))

        body = await page(client)

        assert body["next"] is None
        assert body["deliveries"] == [
            {
                "id": str(delivery.id),
                "rule": "slack-growth-user-signed-up",
                "event_id": str(delivery.event_id),
                "medium": "slack",
                "address": "growth",
                "text": "ada signed up",
                "state": "sent",
                "attempts": 1,
                "last_error": None,
                "next_attempt_at": None,
                "unsure_since": None,
                "maybe_repeated": False,
                "message_id": "17.000001",
                "correlation_id": "c-1",
                "traceparent": None,
                "created_at": "2026-01-02T03:04:05Z",
                "sent_at": "2026-01-02T03:04:06Z",
            }
        ]

    async def test_finds_what_the_other_side_refused_and_why(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        await bench.plan(planned(), planned())
        refused, *_ = await claim(bench, limit=1)
        await bench.queue.failed(refused, "channel_not_found", after(1))

        body = await page(client, state="failed")

        assert [(each["id"], each["last_error"]) for each in body["deliveries"]] == [
            (str(refused.id), "channel_not_found")
        ]

    @pytest.mark.parametrize("by", ["rule", "event_id", "correlation_id"])
    async def test_finds_what_matches(
        self, bench: PostgresBench, client: httpx.AsyncClient, by: str
    ) -> None:
        one = planned(rule="rule-1", correlation_id="c-one")
        await bench.plan(one, planned(rule="rule-2", correlation_id="c-two"))

        assert await found(client, **{by: getattr(one, by)}) == [str(one.id)]

    async def test_wants_everything_to_match(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        await bench.plan(planned(rule="rule-1", correlation_id="c-one"))

        assert await found(client, rule="rule-1", correlation_id="c-two") == []
        assert await found(client, event_id=uuid4()) == []

    async def test_comes_in_pages_the_newest_first(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        deliveries = [planned() for _ in range(5)]
        await bench.plan(*deliveries)
        pages = []
        place: dict[str, object] = {}

        while True:
            body = await page(client, limit=2, **place)
            pages.append([each["id"] for each in body["deliveries"]])
            if body["next"] is None:
                break
            place = {"after": body["next"]}

        assert [len(each) for each in pages] == [2, 2, 1]
        ids = [id_ for each in pages for id_ in each]
        assert ids == sorted((str(each.id) for each in deliveries), reverse=True)

    @pytest.mark.parametrize(
        "search",
        [
            {"state": "lost"},
            {"limit": "0"},
            {"limit": "201"},
            {"event_id": "1"},
            {"after": "x"},
            {"correlation_id": "a\x00b"},
            {"rule": "x" * 256},
            {"sate": "failed"},
        ],
    )
    async def test_that_makes_no_sense_is_refused(
        self, client: httpx.AsyncClient, search: dict[str, str]
    ) -> None:
        answer = await client.get("/notifications/deliveries", params=search)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")


class TestWhoMayLook:
    @pytest.mark.parametrize(
        ("refusal", "status"), [(NotAuthenticated("no"), 401), (OperatorsOnly("no"), 403)]
    )
    async def test_nobody_but_an_operator(
        self, engine: AsyncEngine, refusal: Exception, status: int
    ) -> None:
        async def nobody() -> Principal:
            raise refusal

        async with client_of(app(engine, nobody)) as client:
            answer = await client.get("/notifications/deliveries")

        assert answer.status_code == status
