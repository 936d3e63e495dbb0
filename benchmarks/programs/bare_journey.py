"""The floor of a sign-up's journey: its commits and its hops over Kafka, and nothing else.

``python -m benchmarks.programs.bare_journey users|accounts|audit|notification``: one process
for each of the four services, on the services' own tables. Each commit is one prepared statement,
events are sent to Kafka from memory, and nothing polls.
"""

# ruff: noqa: S608 - only constants of this module are concatenated

import asyncio
import hashlib
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from uuid_utils.compat import uuid7

from benchmarks.bench import PARTITIONS

USERS, TASKS, ACCOUNTS = os.environ["TOPICS"].split(",")
BOOTSTRAP = os.environ["KAFKA_BOOTSTRAP"]

DELETE: Final = "DELETE FROM outbox WHERE id = ANY ($1::uuid[])"
# The parameters of every statement begin with those of one of these two.
OUTBOX: Final = """
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, sequence, payload, headers,
        created_at)
    SELECT id, $1, subject, 'event', 1, payload, '{}', $2
    FROM unnest($3::uuid[], $4::text[], $5::bytea[]) AS given (id, subject, payload)
"""
INBOX: Final = """
    seen AS (INSERT INTO inbox VALUES ('floor', $6, $7, 1, $8) ON CONFLICT DO NOTHING),
    done AS (
        INSERT INTO progress (subscriber, topic, topic_id, partition, next_offset, updated_at)
        VALUES ('floor', $6, '00000000-0000-0000-0000-000000000001', $9, $10, $2)
        ON CONFLICT (subscriber, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
    )
"""
SIGN_UP: Final = f"""
    WITH written AS ({OUTBOX})
    INSERT INTO users (id, username, email, password_hash, active, roles, created_at, version,
        sequence)
    VALUES ($6, $7, $8, $9, true, '', $2, 1, 1)
"""
GIVE_TASKS: Final = f"""
    WITH written AS ({OUTBOX}), {INBOX}
    INSERT INTO tasks SELECT id, 'Read the project documentation', $11, $2, 1, 1
    FROM unnest($3::uuid[], $4::text[]) AS given (event, subject), CAST(subject AS uuid) AS id
"""
OPEN_ACCOUNT: Final = f"""
    WITH written AS ({OUTBOX}), {INBOX}, opened AS (
        INSERT INTO accounts VALUES ($11, 'personal', $12, 'EUR', 0, 1, $2, 1, 1)
    )
    INSERT INTO ledger_entries VALUES ($13, $11, 1, 0, 0, 'Initial', $2)
"""
KEEP: Final = f"""
    WITH written AS ({OUTBOX}), {INBOX}
    INSERT INTO records (topic, partition, "offset", key, headers, payload, sha256, recorded_at,
        event_id, source, type, subject, occurred_at, sequence, verdict, altered)
    VALUES ($6, $9, $10 - 1, $11, '[]', $12, $13, $2, $8, 'floor', 'event', $7, $2, 1, 'next',
        false)
"""
PLAN: Final = f"""
    WITH written AS ({OUTBOX}), {INBOX}
    INSERT INTO deliveries (id, rule, event_id, medium, address, text, correlation_id, state,
        attempts, next_attempt_at, maybe_repeated, created_at, updated_at)
    VALUES ($11, 'floor', $8, 'slack', 'growth', $12, $7, 'pending', 0, $2, false, $2, $2)
"""
CLAIM: Final = """
    UPDATE deliveries SET state = 'sending', attempts = 1, claimed_at = $2, updated_at = $2
    WHERE id = $1
"""
MARK: Final = """
    UPDATE deliveries SET state = 'sent', message_id = $3, sent_at = $2, updated_at = $2,
        next_attempt_at = NULL
    WHERE id = $1
"""

Event = tuple[UUID, str, bytes]
Pool = Any
Handler = Callable[[ConsumerRecord, dict[str, Any]], Awaitable[None]]


def event(subject: UUID, data: dict[str, Any]) -> Event:
    """Return an event's id, its key, and as many bytes as a real one has."""
    id_ = uuid7()
    envelope = {
        "specversion": "1.0",
        "id": id_,
        "source": "/users",
        "type": "users.user-signed-up.v1",
        "subject": subject,
        "time": datetime.now(UTC),
        "datacontenttype": "application/json",
        "dataschema": "urn:onboarding:schema:users.user-signed-up.v1",
        "sequence": "0000000001",
        "correlationid": id_,
        "causationid": id_,
        "traceparent": f"00-{id_.hex}-{id_.hex[:16]}-01",
        "data": data,
    }
    return id_, str(subject), orjson.dumps(envelope)


def outbox_values(topic: str, events: Sequence[Event]) -> tuple[Any, ...]:
    """Return the parameters of ``OUTBOX``."""
    columns = ([each[n] for each in events] for n in range(3))
    return topic, datetime.now(UTC), *columns


def inbox_values(record: ConsumerRecord, envelope: dict[str, Any]) -> tuple[Any, ...]:
    """Return the parameters of ``INBOX``."""
    progress = (record.partition, record.offset + 1)
    return record.topic, record.key.decode(), UUID(envelope["id"]), *progress


class Service:
    """A process: its database, and what it publishes."""

    def __init__(self, pool: Pool, producer: AIOKafkaProducer) -> None:
        self.pool, self.producer = pool, producer
        self._publishing: set[asyncio.Task[None]] = set()

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        """Send committed events, and then delete them from the outbox."""
        task = asyncio.create_task(self._publish(topic, events))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self, topic: str, events: Sequence[Event]) -> None:
        sent = [await self.producer.send(topic, value, key.encode()) for _, key, value in events]
        await asyncio.gather(*sent)
        await self.pool.execute(DELETE, [id_ for id_, *_ in events])

    async def consume(self, topics: Sequence[str], handle: Handler) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest")
        consumer.assign([TopicPartition(topic, n) for topic in topics for n in range(PARTITIONS)])
        await consumer.start()
        print("ready", flush=True)
        async for record in consumer:
            await handle(record, orjson.loads(record.value))


async def users(service: Service) -> None:
    """Take a name on each line and answer with an id; create the tasks of each sign-up."""

    async def sign_ups(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with service.pool.acquire() as connection:
            while line := await reader.readline():
                name, id_ = line.decode().strip(), uuid7()
                mail = f"{name}@example.com"
                events = [event(id_, {"user_id": id_, "username": name, "email": mail})]
                own = (id_, name, mail, "x" * 97)
                await connection.execute(SIGN_UP, *outbox_values(USERS, events), *own)
                service.publish(USERS, events)
                writer.write(f"{id_}\n".encode())

    async def give_tasks(record: ConsumerRecord, envelope: dict[str, Any]) -> None:
        user = UUID(envelope["subject"])
        events = [event(uuid7(), {"assignee_id": user, "name": "x" * 30}) for _ in range(2)]
        values = (*outbox_values(TASKS, events), *inbox_values(record, envelope), user)
        await service.pool.execute(GIVE_TASKS, *values)
        service.publish(TASKS, events)

    server = await asyncio.start_server(sign_ups, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await service.consume([USERS], give_tasks)


async def accounts(service: Service) -> None:
    async def open_account(record: ConsumerRecord, envelope: dict[str, Any]) -> None:
        account, user = uuid7(), UUID(envelope["subject"])
        events = [event(account, {"account_id": account, "user_id": user, "currency": "EUR"})]
        values = (
            *outbox_values(ACCOUNTS, events),
            *inbox_values(record, envelope),
            account,
            user,
            uuid7(),
        )
        await service.pool.execute(OPEN_ACCOUNT, *values)
        service.publish(ACCOUNTS, events)

    await service.consume([USERS], open_account)


async def audit(service: Service) -> None:
    async def keep(record: ConsumerRecord, envelope: dict[str, Any]) -> None:
        own = (record.key, record.value, hashlib.sha256(record.value).digest())
        await service.pool.execute(
            KEEP, *outbox_values("", []), *inbox_values(record, envelope), *own
        )

    await service.consume([USERS, TASKS, ACCOUNTS], keep)


async def notification(service: Service) -> None:
    headers = {"Authorization": "Bearer xoxb-floor"}
    async with aiohttp.ClientSession(headers=headers) as slack:
        posting = set[asyncio.Task[None]]()

        async def plan(record: ConsumerRecord, envelope: dict[str, Any]) -> None:
            id_, text = uuid7(), f"{envelope['data']['username']} signed up"
            values = (*outbox_values("", []), *inbox_values(record, envelope), id_, text)
            await service.pool.execute(PLAN, *values)
            task = asyncio.create_task(post(id_, text))
            posting.add(task)
            task.add_done_callback(posting.discard)

        async def post(id_: UUID, text: str) -> None:
            await service.pool.execute(CLAIM, id_, datetime.now(UTC))
            payload = {"delivery_id": str(id_)}
            body = {
                "channel": "growth",
                "text": text,
                "metadata": {"event_type": "notification_delivery", "event_payload": payload},
            }
            async with slack.post(
                f"{os.environ['SLACK_URL']}/api/chat.postMessage", json=body
            ) as it:
                ts = (await it.json())["ts"]
            await service.pool.execute(MARK, id_, datetime.now(UTC), ts)

        await service.consume([USERS], plan)


async def main(run: Callable[[Service], Awaitable[None]]) -> None:
    pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=3)
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks="all", enable_idempotence=True)
    await producer.start()
    await run(Service(pool, producer))


if __name__ == "__main__":
    roles = {each.__name__: each for each in (users, accounts, audit, notification)}
    uvloop.run(main(roles[sys.argv[1]]))
