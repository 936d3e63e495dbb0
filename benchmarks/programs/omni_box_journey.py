"""A sign-up's journey on omni-box, whose outbox and inbox it uses; it runs in its own environment.

``python -m benchmarks.programs.omni_box_journey users|accounts|audit|notification``: one process
for each of the four services. ``users`` first prints the port at which it takes names.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import UUID, uuid4

import aiohttp
import structlog
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from omni_box import (  # type: ignore[import-not-found]
    EnvelopeEventConverter,
    InboxConsumerRunner,
    OmniBoxDomainService,
    OutboxPublisher,
)
from omni_box.infra.brokers.kafka import (  # type: ignore[import-not-found]
    KafkaEventConsumer,
    KafkaEventPublisher,
)
from omni_box.infra.storage.postgres import (  # type: ignore[import-not-found]
    InboxEventDBBase,
    OutboxEventDBBase,
    PostgresInboxRepository,
    PostgresOutboxRepository,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from benchmarks.programs.plain_tables import ACCOUNT, ENTRY, RECORD, TASK, TASK_NAMES, USER

USERS, TASKS, ACCOUNTS = os.environ["TOPICS"].split(",")
BOOTSTRAP = os.environ["KAFKA_BOOTSTRAP"]
# As in its documentation; here its own process wakes it too, as our relay's does.
PAUSE_S: Final = 1.0
LOOK_EVERY_S: Final = 0.01
BATCH: Final = 100

DELIVERY = text("INSERT INTO deliveries (id, text, message_id) VALUES (:id, :text, :message)")

Handler = Callable[[Any, PostgresInboxRepository], Awaitable[None]]


class Base(DeclarativeBase): ...


class Outbox(OutboxEventDBBase, Base): ...  # type: ignore[misc]


class Inbox(InboxEventDBBase, Base): ...  # type: ignore[misc]


class Service:
    """A process: its database, its outbox and its inbox."""

    def __init__(self, name: str) -> None:
        self.name = name
        url = os.environ[f"{name.upper()}_DATABASE_URL"]
        self._engine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=20
        )
        self._written = asyncio.Event()
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._domain = OmniBoxDomainService()

    async def make_tables(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def write(
        self, session: AsyncSession, topic: str, subject: UUID, payload: dict[str, str]
    ) -> None:
        """Write an event to the outbox, in the session's transaction."""
        event = self._domain.create_outbox_event(
            aggregate_type=self.name,
            aggregate_id=subject,
            event_type=f"{topic}.v1",
            topic=topic,
            partition_key=str(subject),
            payload={"subject": str(subject), **payload},
        )
        await PostgresOutboxRepository(session, model_class=Outbox).create(event)

    async def publish(self) -> None:
        """Publish the outbox, until this is cancelled."""
        producer = AIOKafkaProducer(
            bootstrap_servers=BOOTSTRAP, acks="all", enable_idempotence=True
        )
        await producer.start()
        broker = KafkaEventPublisher(producer=producer, converter=EnvelopeEventConverter())
        while True:
            async with self._sessions() as session, session.begin():
                outbox = PostgresOutboxRepository(session, model_class=Outbox)
                result = await OutboxPublisher(outbox, broker).publish_batch(
                    worker_id=self.name, batch_size=BATCH
                )
            if not result.processed_event_ids:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_S):
                        await self._written.wait()
                self._written.clear()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        async with self._sessions() as session, session.begin():
            yield session
        self._written.set()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresInboxRepository]:
        async with self.session() as session:
            yield PostgresInboxRepository(session, model_class=Inbox)

    async def consume(self, topics: Sequence[str], handle: Handler) -> None:
        """Handle each event in a transaction with its inbox row, until this is cancelled."""
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=BOOTSTRAP,
            group_id=f"{USERS}.{self.name}",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        runner = InboxConsumerRunner(
            consumer=KafkaEventConsumer(consumer),
            transaction_provider=self,
            handler=handle,
            worker_id=self.name,
            consumer_group=self.name,
        )
        await runner.start()
        while not consumer.assignment():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_S)
        print("ready", flush=True)
        await runner.run_forever()


async def users(service: Service) -> None:
    async def sign_ups(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            name, id_ = line.decode().strip(), uuid4()
            mail = f"{name}@example.com"
            async with service.session() as session:
                await session.execute(USER, {"id": id_, "name": name, "email": mail})
                payload = {"user_id": str(id_), "username": name, "email": mail}
                await service.write(session, USERS, id_, payload)
            writer.write(f"{id_}\n".encode())

    async def give_tasks(event: Any, inbox: PostgresInboxRepository) -> None:
        user = UUID(event.payload["user_id"])
        for name in TASK_NAMES:
            id_ = uuid4()
            await inbox.session.execute(TASK, {"id": id_, "user": user, "name": name})
            await service.write(inbox.session, TASKS, id_, {"user_id": str(user), "name": name})

    server = await asyncio.start_server(sign_ups, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.gather(service.publish(), service.consume([USERS], give_tasks))


async def accounts(service: Service) -> None:
    async def open_account(event: Any, inbox: PostgresInboxRepository) -> None:
        user, id_ = UUID(event.payload["user_id"]), uuid4()
        await inbox.session.execute(ACCOUNT, {"id": id_, "user": user})
        await inbox.session.execute(ENTRY, {"id": uuid4(), "account": id_})
        payload = {"user_id": str(user), "account_id": str(id_), "currency": "EUR"}
        await service.write(inbox.session, ACCOUNTS, id_, payload)

    await asyncio.gather(service.publish(), service.consume([USERS], open_account))


async def audit(service: Service) -> None:
    async def keep(event: Any, inbox: PostgresInboxRepository) -> None:
        values = {
            "id": event.id,
            "type": event.event_type,
            "subject": event.payload["subject"],
            "payload": str(event.payload),
        }
        await inbox.session.execute(RECORD, values)

    await service.consume([USERS, TASKS, ACCOUNTS], keep)


async def notification(service: Service) -> None:
    headers = {"Authorization": "Bearer xoxb-omni-box"}
    async with aiohttp.ClientSession(os.environ["SLACK_URL"], headers=headers) as slack:

        async def post(event: Any, inbox: PostgresInboxRepository) -> None:
            body = {"channel": "growth", "text": f"{event.payload['username']} signed up"}
            async with slack.post("/api/chat.postMessage", json=body) as answer:
                message = (await answer.json())["ts"]
            values = {"id": event.id, "text": body["text"], "message": message}
            await inbox.session.execute(DELIVERY, values)

        await service.consume([USERS], post)


async def main(run: Callable[[Service], Awaitable[None]]) -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    service = Service(run.__name__)
    await service.make_tables()
    await run(service)


if __name__ == "__main__":
    roles = {each.__name__: each for each in (users, accounts, audit, notification)}
    uvloop.run(main(roles[sys.argv[1]]))
