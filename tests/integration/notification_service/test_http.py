"""The operators' routes to deliveries, on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import select

from chassis.operations.context import ServiceRuntime
from chassis.operations.routes import routes_of
from chassis.persistence.database import Database
from chassis.persistence.tables import outbox
from chassis.testing import eventually
from chassis.web.app import create_app
from chassis.web.auth import OPERATOR, NotAuthenticated, OperatorsOnly, Principal
from chassis.web.health import Health
from contracts.envelope import decode, event_in
from contracts.operations import DeliveryRetriedV1
from notification_service.bootstrap import SERVICE
from notification_service.chat import Message
from notification_service.deliveries import State
from notification_service.in_memory import InMemoryChat
from notification_service.operations import OPERATIONS
from notification_service.postgres_deliveries import PostgresNotificationWork
from notification_service.queries import why_failed
from notification_service.settings import NotificationSettings
from notification_service.tables import deliveries
from notification_service.worker import DeliveryWorker, Timeouts
from tests.unit.notification_service.delivery_queue_suite import claim
from tests.unit.notification_service.making import after, planned

from .test_postgres_deliveries import PostgresBench


async def an_operator_asks() -> Principal:
    return Principal(UUID(int=1), frozenset({OPERATOR}))


SETTINGS = NotificationSettings(
    environment="development",
    database_url=SecretStr("postgresql://notification@127.0.0.1:1/notification"),
    jwks_url="http://127.0.0.1:1/jwks.json",
    idempotency_secret=SecretStr("s" * 32),
)


def runtime_of(
    engine: Database,
) -> ServiceRuntime[NotificationSettings, PostgresNotificationWork]:
    return ServiceRuntime(SERVICE, SETTINGS, engine, lambda: after(60))


def app(engine: Database, operator: Any = an_operator_asks) -> FastAPI:
    return create_app(
        title="Notification",
        description="For tests.",
        version="1",
        settings=SETTINGS,
        routers=[routes_of(OPERATIONS, runtime_of(engine), operator)],
        health=Health(),
    )


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://notification")


@pytest.fixture
async def client(engine: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app(engine)) as client:
        yield client


@pytest.fixture
def bench(engine: Database) -> PostgresBench:
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


class TestReadiness:
    async def test_names_the_errors_of_failed_deliveries(
        self, bench: PostgresBench, engine: Database
    ) -> None:
        nothing = await why_failed(engine)
        await bench.plan(planned())
        (claimed,) = await claim(bench)
        await bench.queue.failed(claimed, "channel_not_found", after(1))

        assert nothing is None
        assert await why_failed(engine) == "failed: 1 channel_not_found"


class TestASearch:
    async def test_returns_the_state_of_a_delivery(
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

    async def test_finds_a_failed_delivery_with_its_error(
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
    async def test_is_narrowed_by_each_filter(
        self, bench: PostgresBench, client: httpx.AsyncClient, by: str
    ) -> None:
        one = planned(rule="rule-1", correlation_id="c-one")
        await bench.plan(one, planned(rule="rule-2", correlation_id="c-two"))

        assert await found(client, **{by: getattr(one, by)}) == [str(one.id)]

    async def test_finds_deliveries_that_match_all_filters(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        await bench.plan(planned(rule="rule-1", correlation_id="c-one"))

        assert await found(client, rule="rule-1", correlation_id="c-two") == []
        assert await found(client, event_id=uuid4()) == []

    async def test_returns_pages_newest_first(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        deliveries = [planned() for _ in range(5)]
        await bench.plan(*deliveries)
        pages = []
        after_: dict[str, object] = {}

        while True:
            body = await page(client, limit=2, **after_)
            pages.append([each["id"] for each in body["deliveries"]])
            if body["next"] is None:
                break
            after_ = {"after": body["next"]}

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
    async def test_with_an_invalid_parameter_is_refused(
        self, client: httpx.AsyncClient, search: dict[str, str]
    ) -> None:
        answer = await client.get("/notifications/deliveries", params=search)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")


class TestARetry:
    async def test_makes_a_failed_delivery_due_at_once_and_is_published(
        self, engine: Database, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        delivery = planned()
        await bench.plan(delivery)
        (claimed,) = await claim(bench)
        await bench.queue.failed(claimed, "channel_not_found", after(1))
        woken: list[str] = []
        engine.on_commit(deliveries, lambda: woken.append("by deliveries"))

        answer = await client.post(
            f"/notifications/deliveries/{delivery.id}/retry", json={"why": "the channel is there"}
        )

        assert answer.status_code == 204
        assert woken == ["by deliveries"]
        (again,) = await claim(bench, after(60))
        assert (again.id, again.unsure_since) == (delivery.id, None)
        async with engine.connect() as connection:
            row = (await connection.execute(select(outbox))).one()
        assert (row.aggregatetype, row.aggregateid, row.sequence) == (
            "notification.operations",
            str(delivery.id),
            1,
        )
        assert event_in(decode(row.payload), DeliveryRetriedV1) == DeliveryRetriedV1(
            by=str(UUID(int=1)),
            why="the channel is there",
            delivery_id=delivery.id,
            rule=delivery.rule,
        )

    async def test_of_a_delivery_that_may_have_arrived_searches_for_it_first(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        delivery = planned()
        await bench.plan(delivery)
        chat = InMemoryChat()
        message = Message(delivery.address, delivery.text, delivery.id, "c-1")
        await chat.post(message)
        (first,) = await claim(bench)
        await bench.queue.put_back(first, "timeout", after(1), at=after(4), unsure=True)
        (second,) = await claim(bench, after(4))
        await bench.queue.failed(second, "channel_not_found", after(5))

        await client.post(f"/notifications/deliveries/{delivery.id}/retry", json={"why": "x"})

        timeouts = Timeouts(call_s=10, lease_s=15, settle_s=3, longest_retry_s=60)
        worker = DeliveryWorker(bench.queue, chat, lambda: after(60), timeouts, concurrency=1)
        working = asyncio.create_task(worker.run())

        async def is_sent() -> bool:
            return (await bench.see(delivery.id)).state is State.SENT

        await eventually(is_sent)
        await worker.stop()
        await working
        assert [each for _, each in chat.messages] == [message]
        assert not (await bench.see(delivery.id)).maybe_repeated

    async def test_that_is_requested_concurrently_happens_once(
        self, engine: Database, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        delivery = planned()
        await bench.plan(delivery)
        (claimed,) = await claim(bench)
        await bench.queue.failed(claimed, "channel_not_found", after(1))

        path = f"/notifications/deliveries/{delivery.id}/retry"
        answers = await asyncio.gather(*(client.post(path, json={"why": "x"}) for _ in range(4)))

        assert sorted(each.status_code for each in answers) == [204, 409, 409, 409]
        async with engine.connect() as connection:
            assert len((await connection.execute(select(outbox))).all()) == 1

    async def test_of_a_delivery_that_has_not_failed_is_refused(
        self, bench: PostgresBench, client: httpx.AsyncClient
    ) -> None:
        delivery = planned()
        await bench.plan(delivery)

        pending = await client.post(
            f"/notifications/deliveries/{delivery.id}/retry", json={"why": "x"}
        )
        unknown = await client.post(f"/notifications/deliveries/{uuid4()}/retry", json={"why": "x"})
        no_reason = await client.post(f"/notifications/deliveries/{delivery.id}/retry", json={})

        assert (pending.status_code, pending.json()["code"]) == (409, "not-failed")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "no-such-delivery")
        assert (no_reason.status_code, no_reason.json()["code"]) == (422, "invalid-fields")


class TestAUserWhoIsNoOperator:
    @pytest.mark.parametrize(
        ("refusal", "status"), [(NotAuthenticated("no"), 401), (OperatorsOnly("no"), 403)]
    )
    async def test_may_neither_list_nor_retry(
        self, engine: Database, refusal: Exception, status: int
    ) -> None:
        async def refuse() -> Principal:
            raise refusal

        async with client_of(app(engine, refuse)) as client:
            answer = await client.get("/notifications/deliveries")
            retry = await client.post(
                f"/notifications/deliveries/{uuid4()}/retry", json={"why": "x"}
            )

        assert (answer.status_code, retry.status_code) == (status, status)
