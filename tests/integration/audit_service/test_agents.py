"""From Kafka into the records, with the service as its bootstrap builds it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr
from sqlalchemy import select

from audit_service.agents import subscribers
from audit_service.bootstrap import build
from audit_service.records import AuditWork
from audit_service.settings import AuditSettings
from audit_service.tables import records
from chassis.consuming.worker import Worker
from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from chassis.persistence.database import Database, Row
from chassis.process.run import Component
from chassis.testing import FakeRecord, eventually
from chassis.web.health import Health
from contracts.topics import TOPICS
from tests.integration.chassis.path import create_topic, topic_of_its_own, utc_now
from tests.unit.audit_service.making import event


def settings_for(database: str, kafka: str) -> AuditSettings:
    return AuditSettings(
        database_url=SecretStr(database),
        kafka_bootstrap=kafka,
        worker_name=uuid4().hex,
        jwks_url="http://127.0.0.1:1/jwks.json",
        idempotency_secret=SecretStr("s" * 32),
        environment="development",
    )


@asynccontextmanager
async def running(components: Sequence[Component]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in components]
    try:
        yield
    finally:
        for each in components:
            await each.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def send(kafka: str, *delivered: FakeRecord) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for each in delivered:
            await producer.send_and_wait(
                each.topic,
                value=each.value,
                key=each.key,
                headers=list(each.headers),
                partition=each.partition,
            )
    finally:
        await producer.stop()


async def records_of(engine: Database, **where: str) -> Sequence[Row]:
    query = select(records).filter_by(**where).order_by(records.c.position)
    async with engine.connect() as connection:
        return (await connection.execute(query)).all()


async def test_everything_on_a_topic_is_recorded(
    kafka: str, audit_database: str, engine: Database
) -> None:
    topic = topic_of_its_own(partitions=1)
    await create_topic(kafka, topic)
    good, repeated = event(), event()
    delivered = [
        FakeRecord(topic.name, 0, 0, good.key, good.payload, good.headers),
        FakeRecord(topic.name, 0, 1, None, b"no event", []),
        FakeRecord(topic.name, 0, 2, b"tombstone", None, []),
        FakeRecord(topic.name, 0, 3, None, b"", [("one", b"\xff"), ("one", b""), ("none", None)]),
        FakeRecord(topic.name, 0, 4, None, repeated.payload, []),
        FakeRecord(topic.name, 0, 5, None, repeated.payload, []),
        FakeRecord(topic.name, 0, 6, None, b"x" * 1_000_000, []),
    ]
    await send(kafka, *delivered)
    agents = Worker(
        settings_for(audit_database, kafka),
        service=topic.name,
        database=engine,
        open_work=lambda connection: AuditWork(connection, utc_now),
        subscribers=subscribers([topic]),
        now=utc_now,
    )

    async def all_recorded() -> bool:
        return len(await records_of(engine, topic=topic.name)) == len(delivered) - 1

    async with running([agents]):
        await eventually(all_recorded)
    rows = await records_of(engine, topic=topic.name)
    assert [(row.offset, row.key, row.payload) for row in rows] == [
        (each.offset, each.key, each.value) for each in delivered if each.offset != 5
    ]
    assert [row.invalid_reason is None for row in rows] == [True, False, False, False, True, False]
    assert rows[3].headers == [["one", "/w=="], ["one", ""], ["none", None]]


async def test_the_service_records_every_topic_of_the_catalogue_for_operators_only(
    kafka: str, audit_database: str, engine: Database
) -> None:
    async with admin_client(kafka) as client:
        await create_topics(client, brokers=1)
    sent_event = event(subject=str(uuid4()))
    subject = sent_event.key.decode()
    sent = [
        FakeRecord(topic.name, 0, 0, sent_event.key, event(subject=subject).payload, [])
        for topic in TOPICS
    ]
    await send(kafka, *sent)

    async def all_recorded() -> bool:
        return len(await records_of(engine, subject=subject)) == len(TOPICS)

    async with build(settings_for(audit_database, kafka), Health()) as service:
        agents = [each for each in service.components if each.name == "agents"]
        async with running(agents):
            await eventually(all_recorded)
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://audit") as client:
            refused = await client.get("/audit/events", params={"subject": subject})
    assert refused.status_code == 401
    rows = await records_of(engine, subject=subject)
    assert {row.topic for row in rows} == {topic.name for topic in TOPICS}
