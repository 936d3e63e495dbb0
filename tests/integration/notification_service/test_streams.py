"""A user's own events reach their browser, on PostgreSQL and through the gateway."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from chassis.persistence.database import Database
from tests.integration.gateway.toys import gateway

from .streaming import (
    Running,
    bearer,
    consume,
    freezing_of,
    record_of,
    running,
    stream,
    transaction_of,
)


@pytest.fixture
async def service(notification_database: str) -> AsyncIterator[Running]:
    async with running(notification_database) as service:
        yield service


@pytest.fixture
async def client(service: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway before the service."""
    async with gateway(notification_url=service.url) as client:
        yield client


class TestAStream:
    async def test_brings_a_users_own_events_and_no_others(
        self, client: httpx.AsyncClient, engine: Database
    ) -> None:
        ada, bob = uuid4(), uuid4()
        async with stream(client, bearer(ada)) as of_ada:
            opened = await of_ada.next()
            await consume(
                engine,
                record_of(transaction_of(bob)),
                record_of(transaction_of(ada)),
                record_of(freezing_of(ada), sequence=2),
            )
            events = [await of_ada.next(), await of_ada.next()]

        assert opened.type == "open"
        assert [each.type for each in events] == ["message", "message"]
        created, frozen = (each.data for each in events)
        assert created["type"] == "accounts.transaction-created.v1"
        assert (created["user_id"], created["delta"]) == (str(ada), 1230)
        assert frozen.keys() == {"type", "time", "account_id", "user_id"}
        headers = of_ada.answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers.get_list("cache-control") == ["no-store"]
        assert headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in headers
