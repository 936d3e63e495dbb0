"""The service and the stand-in as processes, which are killed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from aiokafka import AIOKafkaProducer
from sqlalchemy import select

from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from chassis.persistence.database import Database
from chassis.testing import FakeRecord
from contracts.topics import USERS_USER
from local_cluster.ports import free_port
from notification_service.tables import deliveries

from .stand_in import StandIn
from .test_journey import signed_up, until_in_state


@asynccontextmanager
async def process_of(module: str, **environment: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        env=os.environ | environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(60):
            await process.wait()


async def kill(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def publish(kafka: str, *records: FakeRecord) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for each in records:
            await producer.send_and_wait(
                USERS_USER.name, value=each.value, key=each.key, headers=list(each.headers)
            )
    finally:
        await producer.stop()


async def until_ready(url: str) -> None:
    async with httpx.AsyncClient(timeout=30) as client, asyncio.timeout(60):
        while True:
            try:
                if (await client.get(f"{url}/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


class TestTheServiceKilled:
    async def test_between_post_and_mark_does_not_post_again(
        self, engine: Database, notification_database: str, kafka: str, slack: StandIn
    ) -> None:
        async with admin_client(kafka) as admin:
            await create_topics(admin, brokers=1)
        name, killed_name = f"ada-{uuid4().hex[:8]}", f"bob-{uuid4().hex[:8]}"
        settings = {
            "NOTIFICATION_ENVIRONMENT": "development",
            "NOTIFICATION_ROLES": "agents",
            "NOTIFICATION_HTTP_PORT": "0",
            "NOTIFICATION_WORKER_NAME": uuid4().hex,
            "NOTIFICATION_DATABASE_URL": notification_database,
            "NOTIFICATION_KAFKA_BOOTSTRAP": kafka,
            "NOTIFICATION_JWKS_URL": "http://127.0.0.1:1/jwks.json",
            "NOTIFICATION_IDEMPOTENCY_SECRET": "s" * 32,
            "NOTIFICATION_SLACK_BASE_URL": slack.base_url,
            "NOTIFICATION_DELIVERY_TIMEOUT_S": "3",
            "NOTIFICATION_DELIVERY_LEASE_S": "4",
            "NOTIFICATION_DELIVERY_SETTLE_S": "0.5",
        }

        async with process_of("notification_service", **settings) as service:
            await publish(kafka, signed_up(0, name))
            await until_posted(slack, name)
            await slack.fail("timeout_after_post", text=f"{killed_name} signed up")
            await publish(kafka, signed_up(1, killed_name))
            await until_posted(slack, killed_name)
            await kill(service)
        left = await states(engine, killed_name)
        async with process_of("notification_service", **settings):
            await until_in_state(engine, "sending", 0)

        assert left == [("sending", False)]
        assert await states(engine, killed_name) == [("sent", False)]
        texts = await slack.texts()
        assert texts.count(f"{name} signed up") == 1
        assert texts.count(f"{killed_name} signed up") == 1


async def until_posted(slack: StandIn, username: str) -> None:
    async with asyncio.timeout(40):
        while f"{username} signed up" not in await slack.texts():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


async def states(engine: Database, username: str) -> list[Any]:
    asked = select(deliveries.c.state, deliveries.c.maybe_repeated).where(
        deliveries.c.text == f"{username} signed up"
    )
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(asked)]


class TestTheStandInKilled:
    async def test_it_has_every_message_whose_post_it_answered(self, tmp_path: Path) -> None:
        port = free_port()
        settings = {
            "SLACK_STAND_IN_HTTP_PORT": str(port),
            "SLACK_STAND_IN_DIRECTORY": str(tmp_path),
        }
        url = f"http://127.0.0.1:{port}"
        module = "notification_service.slack_stand_in"

        async with (
            process_of(module, **settings) as stand_in,
            httpx.AsyncClient(timeout=30) as client,
        ):
            await until_ready(url)
            answers = [
                await client.post(
                    f"{url}/api/chat.postMessage",
                    json={"token": "xoxb-1", "channel": "growth", "text": str(number)},
                )
                for number in range(20)
            ]
            await kill(stand_in)
        async with process_of(module, **settings), httpx.AsyncClient(timeout=30) as client:
            await until_ready(url)
            messages = (await client.get(f"{url}/messages")).json()["messages"]

        assert [each["ts"] for each in messages] == [each.json()["ts"] for each in answers]
