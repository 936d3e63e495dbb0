"""From a record on Kafka to a message in Slack, on PostgreSQL and with slack_sdk."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import func, select

from chassis.correlation import new_id
from chassis.persistence.database import Database
from chassis.testing import FakeRecord
from contracts.envelope import encode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from notification_service.agents import subscribers
from notification_service.postgres_deliveries import (
    PostgresDeliveryQueue,
    PostgresNotificationWork,
)
from notification_service.rules import PlanDeliveries, rules
from notification_service.slack import SlackChat
from notification_service.tables import deliveries
from notification_service.worker import DeliveryWorker, Timeouts

from .stand_in import StandIn

TRACE_ID, SPAN_ID = "a" * 32, "b" * 16
TIMEOUTS = Timeouts(call_s=2, lease_s=4, settle_s=0.5, longest_retry_s=0.2)


def signed_up(offset: int, username: str = "ada") -> FakeRecord:
    user_id = uuid4()
    encoded = encode(
        UserSignedUpV1(user_id=user_id, username=username),
        id=new_id(),
        source="/users",
        subject=str(user_id),
        time=now(),
        sequence=1,
        correlationid="c-7",
        traceparent=f"00-{TRACE_ID}-{SPAN_ID}-01",
    )
    return FakeRecord.of(encoded, USERS_USER.name, offset)


def now() -> datetime:
    return datetime.now(UTC)


async def consume(engine: Database, *records: FakeRecord) -> None:
    (subscriber,) = subscribers(PlanDeliveries(rules(slack_channel="growth"), new_id, now))
    async with engine.begin() as connection:
        work = PostgresNotificationWork(connection)
        await subscriber.take(work, connection, records, now)
        await work.flush()


@pytest.fixture
async def chat(slack: StandIn) -> AsyncIterator[SlackChat]:
    async with aclosing(SlackChat("xoxb-test", slack.base_url, timeout_s=TIMEOUTS.call_s)) as it:
        yield it


def worker(engine: Database, chat: SlackChat) -> DeliveryWorker:
    return DeliveryWorker(
        PostgresDeliveryQueue(engine, "slack"), chat, now, TIMEOUTS, concurrency=4
    )


@asynccontextmanager
async def working(*workers: DeliveryWorker) -> AsyncIterator[None]:
    running = [asyncio.create_task(each.run()) for each in workers]
    try:
        yield
    finally:
        for each in workers:
            await each.stop()
        async with asyncio.timeout(30):
            await asyncio.gather(*running)


async def until_in_state(engine: Database, state: str, count: int) -> None:
    """Wait until this many deliveries are in this state."""
    asked = select(func.count()).select_from(deliveries).where(deliveries.c.state == state)
    async with asyncio.timeout(60):
        while True:
            async with engine.connect() as connection:
                if await connection.scalar(asked) == count:
                    return
            await asyncio.sleep(0.02)


class TestThePlan:
    async def test_wakes_those_who_wait_for_deliveries_once_it_is_committed(
        self, engine: Database
    ) -> None:
        woken: list[str] = []
        engine.on_commit(deliveries, lambda: woken.append("by deliveries"))

        await consume(engine, signed_up(0))

        assert woken == ["by deliveries"]


class TestTheJourney:
    async def test_a_sign_up_that_is_delivered_twice_is_sent_once(
        self, engine: Database, slack: StandIn, chat: SlackChat
    ) -> None:
        record = signed_up(0)

        async with working(worker(engine, chat)):
            await consume(engine, record)
            await consume(engine, record)
            await until_in_state(engine, "sent", 1)

        (message,) = await slack.messages()
        assert (message["channel"], message["text"]) == ("growth", "ada signed up")
        assert message["metadata"]["event_payload"]["correlation_id"] == "c-7"

    async def test_many_workers_send_each_delivery_once(
        self, engine: Database, slack: StandIn, chat: SlackChat
    ) -> None:
        records = [signed_up(number, f"user-{number}") for number in range(60)]

        async with working(*(worker(engine, chat) for _ in range(4))):
            await consume(engine, *records)
            await until_in_state(engine, "sent", 60)

        assert sorted(await slack.texts()) == sorted(
            f"user-{number} signed up" for number in range(60)
        )

    async def test_faults_of_slack_lose_and_repeat_no_message(
        self, engine: Database, slack: StandIn, chat: SlackChat
    ) -> None:
        await slack.fail("rate_limited", retry_after_s=0, method="chat.postMessage")
        await slack.fail("timeout_after_post", count=2)
        await slack.fail("server_error", count=3)

        async with working(worker(engine, chat), worker(engine, chat)):
            await consume(engine, *(signed_up(number, f"user-{number}") for number in range(8)))
            await until_in_state(engine, "sent", 8)

        assert sorted(await slack.texts()) == [f"user-{number} signed up" for number in range(8)]

    async def test_a_channel_that_does_not_exist_fails_with_slacks_own_error(
        self, engine: Database, slack: StandIn, chat: SlackChat
    ) -> None:
        await slack.fail("channel_not_found")

        async with working(worker(engine, chat)):
            await consume(engine, signed_up(0))
            await until_in_state(engine, "failed", 1)

        async with engine.connect() as connection:
            assert await connection.scalar(select(deliveries.c.last_error)) == "channel_not_found"

    async def test_it_is_one_trace(
        self, engine: Database, slack: StandIn, chat: SlackChat, spans: InMemorySpanExporter
    ) -> None:
        async with working(worker(engine, chat)):
            await consume(engine, signed_up(0))
            await until_in_state(engine, "sent", 1)

        by_name = {
            each.name: each
            for each in spans.get_finished_spans()
            if each.context is not None and f"{each.context.trace_id:032x}" == TRACE_ID
        }
        planned = by_name["notification.plan-deliveries users.user-signed-up.v1"]
        sent = by_name["deliver slack-growth-user-signed-up"]
        assert planned.context is not None
        assert sent.parent is not None
        assert sent.parent.span_id == planned.context.span_id
