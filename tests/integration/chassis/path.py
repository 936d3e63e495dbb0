"""A service with one table of effects, which shows what was handled and how often."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID, uuid4

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from pydantic import SecretStr
from sqlalchemy import BigInteger, Column, Identity, MetaData, Table, Text, Uuid, insert

from chassis.consuming.subscribers import EventSubscriber, Handler, Start, Subscriber
from chassis.consuming.worker import Worker
from chassis.correlation import new_id
from chassis.kafka.client import admin_client
from chassis.persistence import tables
from chassis.persistence.database import Connection, Database
from chassis.settings import ServiceSettings
from chassis.testing import eventually
from contracts.envelope import EncodedEvent, Envelope, encode
from contracts.events import IntegrationEvent
from contracts.topics import Topic
from contracts.users import TaskCreatedV1, UserSignedUpV1
from tests.integration.statements import create_tables

metadata = MetaData(naming_convention=tables.NAMING)
effects = Table(
    "effects",
    metadata,
    # Not unique by event: an effect that happens twice must show.
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("subscriber", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)
tables.add_to(metadata)


def utc_now() -> datetime:
    return datetime.now(UTC)


class PathWork:
    """A unit of work with one effect: a row for each event that was handled."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._rows: list[dict[str, Any]] = []

    def handled(self, subscriber: str, envelope: Envelope) -> None:
        self._rows.append(
            {
                "event_id": envelope.id,
                "subscriber": subscriber,
                "subject": envelope.subject,
                "sequence": envelope.sequence,
            }
        )

    async def flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            await self.connection.execute(insert(effects), rows)
            self.connection.wrote(effects)


def settings_for(database: str, kafka: str, **changes: Any) -> ServiceSettings:
    return ServiceSettings(
        database_url=SecretStr(database),
        kafka_bootstrap=kafka,
        http_port=0,
        idempotency_secret=SecretStr("x" * 32),
        environment="development",
        **changes,
    )


def topic_of_its_own(partitions: int = 2) -> Topic:
    return Topic(
        name=f"test.{uuid4().hex[:12]}",
        key="subject",
        owner="test",
        consumers=("test",),
        events=(UserSignedUpV1,),
        partitions=partitions,
    )


async def create_topic(kafka: str, topic: Topic, **config: str) -> None:
    async with admin_client(kafka) as client:
        await client.create_topics(
            [NewTopic(topic.name, topic.partitions, 1, topic_configs=config)]
        )


@asynccontextmanager
async def schema(database: str, of: MetaData = metadata) -> AsyncIterator[Database]:
    """Make the tables, by default those of the path service, and open a pool."""
    engine = Database(database, pool_size=10, application_name="test")
    async with engine.begin() as connection:
        await create_tables(connection, of)
    try:
        yield engine
    finally:
        await engine.close()


class UserSignedUpV2(UserSignedUpV1):
    """The next version of an event."""

    event_type: ClassVar[str] = "users.user-signed-up.v2"


def signed_up(
    subject: UUID,
    sequence: int,
    *,
    id_: UUID | None = None,
    model: type[UserSignedUpV1] = UserSignedUpV1,
    versions: Mapping[int, int] | None = None,
) -> EncodedEvent:
    return encode(
        model(user_id=subject, username="ada"),
        id=id_ or new_id(),
        source="/test",
        subject=str(subject),
        time=utc_now(),
        sequence=sequence,
        correlationid="c-1",
        versions=versions,
    )


def in_both_versions(subject: UUID, first: int) -> tuple[EncodedEvent, EncodedEvent]:
    """Return one fact as V1 and V2, which have this sequence and the next."""
    versions = {1: first, 2: first + 1}
    return (
        signed_up(subject, first, versions=versions),
        signed_up(subject, first + 1, model=UserSignedUpV2, versions=versions),
    )


def with_wrong_data(event: EncodedEvent) -> EncodedEvent:
    """Return a sign-up as it is, with data that breaks the schema of its version."""
    wrong = event.payload.replace(b'"username":"ada"', b'"username":7')
    assert wrong != event.payload
    return EncodedEvent(event.key, wrong, event.headers)


def other_event(subject: UUID, sequence: int) -> EncodedEvent:
    return encode(
        TaskCreatedV1(task_id=uuid4(), assignee_id=subject, name="x"),
        id=new_id(),
        source="/test",
        subject=str(subject),
        time=utc_now(),
        sequence=sequence,
        correlationid="c-1",
    )


async def publish(
    kafka: str, topic: Topic, events: Sequence[EncodedEvent], partition: int | None = None
) -> None:
    """Publish events, by default each to the partition of its key."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    try:
        await producer.start()
        sent = [
            await producer.send(topic.name, each.payload, each.key, partition, headers=each.headers)
            for each in events
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


@asynccontextmanager
async def transaction(kafka: str, *, commits: bool = True) -> AsyncIterator[AIOKafkaProducer]:
    """Open a transaction of another product's producer; it ends with the block."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"foreign-{uuid4()}")
    await producer.start()
    try:
        await producer.begin_transaction()
        yield producer
        await (producer.commit_transaction() if commits else producer.abort_transaction())
    finally:
        await producer.stop()


def subscriber(
    name: str,
    topic: Topic,
    *,
    starts: Start = Start.BEGINNING,
    before: Callable[[IntegrationEvent, Envelope], Awaitable[None]] | None = None,
    models: Sequence[type[IntegrationEvent]] = (UserSignedUpV1,),
) -> EventSubscriber[PathWork]:
    async def handle(work: PathWork, event: IntegrationEvent, envelope: Envelope) -> None:
        if before is not None:
            await before(event, envelope)
        work.handled(name, envelope)

    handler: Handler[PathWork] = handle
    return EventSubscriber(
        name=name, topic=topic, handlers=dict.fromkeys(models, handler), starts=starts
    )


@dataclass
class RunningWorker:
    """A running worker of the path service."""

    worker: Worker[PathWork]
    task: asyncio.Task[None] = field(repr=False)


@asynccontextmanager
async def consuming(
    settings: ServiceSettings,
    engine: Database,
    subscribers: Sequence[Subscriber[PathWork]],
    *,
    service: str,
) -> AsyncIterator[RunningWorker]:
    """Run a worker of these subscribers while the block runs."""
    worker = Worker(
        settings,
        service=service,
        database=engine,
        open_work=PathWork,
        subscribers=subscribers,
        now=utc_now,
    )
    task = asyncio.create_task(worker.run())
    try:
        yield RunningWorker(worker, task)
    finally:
        await worker.stop()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)


def one_consuming(
    database: str, kafka: str, engine: Database, topic: Topic
) -> AbstractAsyncContextManager[RunningWorker]:
    """Run a worker with one subscriber to a topic, ``test.one``."""
    one = subscriber("test.one", topic)
    return consuming(settings_for(database, kafka), engine, [one], service=topic.name)


async def rows(database: str, query: str, *arguments: Any) -> list[Any]:
    connection = await asyncpg.connect(database)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()


async def count(database: str, table: str = "effects") -> int:
    found = await rows(database, f"SELECT count(*) AS n FROM {table}")  # noqa: S608
    return int(found[0]["n"])


async def is_waiting_for_a_lock(database: str) -> bool:
    """Return whether a session of this database waits for a lock."""
    waiting = await rows(
        database,
        "SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    return bool(waiting)


async def until_handled(database: str, number: int) -> None:
    """Wait until so many effects are there, and no more."""

    async def all_are() -> bool:
        return await count(database) >= number

    await eventually(all_are)
    assert await count(database) == number


async def until_reports(worker: RunningWorker, reason: str, *, within_s: float = 30) -> None:
    """Wait until a worker, which goes on, reports this."""

    async def reports_it() -> bool:
        assert not worker.task.done()
        return reason in (worker.worker.trouble() or "")

    await eventually(reports_it, within_s=within_s)


async def until_well(worker: RunningWorker) -> None:
    async def is_well() -> bool:
        return worker.worker.trouble() is None

    await eventually(is_well)
