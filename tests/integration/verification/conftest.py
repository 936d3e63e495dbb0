"""A system at rest in which three people have signed up; each test breaks one thing in it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from sqlalchemy.engine import make_url

from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics, topic_states
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from chassis.testing import eventually
from contracts.topics import TOPICS
from local_cluster.testing import RunningCluster, running_cluster
from tests.declared import slack_of
from tests.e2e.people import Operator, poll, token_of
from verification.addresses import SERVICES, Addresses
from verification.report import Report
from verification.verify import verify

PEOPLE = 3
PASSWORD = "correct horse battery"
#: Of the money that some of them move: of a deposit, of both sides of a transfer and its reversal,
#: and that it was reversed.
MONEY_EVENTS = 6

Json = dict[str, Any]


@dataclass
class Origin:
    """The system as it was at rest, and how to restore its topics."""

    cluster: RunningCluster
    report: Report
    records: list[ConsumerRecord]
    messages: list[Json]
    people: list[str]

    async def restore_topics(self) -> None:
        """Make the topics again, with the records that they had."""
        for service in SERVICES:
            connection = await asyncpg.connect(self.cluster.postgres_url(service))
            try:
                # They get other ids, and progress is to be in them.
                await connection.execute(
                    "UPDATE progress SET topic_id = $1 WHERE topic_id <> $1", UNKNOWN_TOPIC_ID
                )
            finally:
                await connection.close()
        async with admin_client(self.cluster.kafka_bootstrap) as client:
            names = [topic.name for topic in TOPICS]
            there = [name for name, state in (await topic_states(client, names)).items() if state]
            await client.delete_topics(there)

            async def all_gone() -> bool:
                return not any((await topic_states(client, names)).values())

            await eventually(all_gone)
            await create_topics(client, brokers=1)
        producer = AIOKafkaProducer(bootstrap_servers=self.cluster.kafka_bootstrap)
        await producer.start()
        try:
            for each in self.records:
                sent = await producer.send_and_wait(
                    each.topic,
                    each.value,
                    each.key,
                    each.partition,
                    headers=list(each.headers),
                )
                assert sent.offset == each.offset
        finally:
            await producer.stop()


@pytest.fixture(scope="module")
def origin(run_directory: Path) -> Iterator[Origin]:
    with running_cluster(run_directory / "verification") as cluster:
        yield asyncio.run(come_to_rest(cluster))


async def come_to_rest(cluster: RunningCluster) -> Origin:
    """Sign people up, wait until the system is at rest, and stop the services."""
    async with httpx.AsyncClient(base_url=cluster.gateway_url, timeout=15) as gateway:
        people = [await sign_up(gateway, f"person.{number}") for number in range(PEOPLE)]
        await move_money(gateway, cluster)
    stand_in = slack_of(cluster)
    report = await verify(
        Addresses(
            databases={service: cluster.postgres_url(service) for service in SERVICES},
            kafka_bootstrap=cluster.kafka_bootstrap,
            slack_stand_in_url=stand_in,
        )
    )
    messages: list[Json] = []
    if stand_in:
        async with httpx.AsyncClient() as client:
            messages = (await client.get(f"{stand_in}/messages")).json()["messages"]
    for service in ("gateway", *SERVICES):
        await asyncio.to_thread(cluster.stop, service)
    records = await read_everything(cluster.kafka_bootstrap)
    return Origin(cluster, report, records, messages, people)


async def sign_up(gateway: httpx.AsyncClient, name: str) -> str:
    """Ask until it is answered, and return the id."""
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    answers: list[httpx.Response] = []

    async def is_answered() -> bool:
        answers.append(await gateway.post("/users", json=body, headers={"Idempotency-Key": name}))
        return answers[-1].status_code == httpx.codes.CREATED

    await eventually(is_answered, despite=(httpx.TransportError,))
    return str(answers[-1].json()["id"])


async def move_money(gateway: httpx.AsyncClient, cluster: RunningCluster) -> None:
    """Deposit to the account of person.1, transfer some of it to person.2, and reverse that.

    Each once, also where another module has done so in the same cluster before.
    """
    operator = await Operator.signed_in(gateway, cluster)
    once = {"Idempotency-Key": "the-money-of-the-tests"}
    by_payer = await token_of(gateway, "person.1", PASSWORD) | once

    async def account_of(name: str) -> str:
        """Wait until it is open, and return its id."""
        headers = await token_of(gateway, name, PASSWORD)

        async def found() -> httpx.Response:
            return await gateway.get("/users/me/account", headers=headers)

        return str((await poll(found, lambda answer: answer.is_success)).json()["id"])

    account, _other = await account_of("person.1"), await account_of("person.2")
    money = {"amount": "10.00", "description": "Some money"}
    paid_in = await gateway.post(
        f"/accounts/{account}/transactions", json=money | {"kind": "deposit"}, headers=by_payer
    )
    transfer = {"from_account": account, "to_username": "person.2"}
    sent = await gateway.post("/transfers", json=money | transfer, headers=by_payer)
    reversal = f"/transfers/{sent.json()['transaction']['id']}/reversal"
    operator.headers |= once
    back = await operator.request("POST", reversal, json={"reason": "a mistake"})
    assert [each.status_code for each in (paid_in, sent, back)] == [201] * 3


async def read_everything(bootstrap: str) -> list[ConsumerRecord]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none")
    await consumer.start()
    try:
        partitions = [
            TopicPartition(topic.name, number)
            for topic in TOPICS
            for number in range(topic.partitions)
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records: list[ConsumerRecord] = []
        for partition in partitions:
            consumer.seek(partition, 0)
        while len(records) < sum(ends.values()):
            for chunk in (await consumer.getmany(timeout_ms=1_000)).values():
                records += chunk
        return records
    finally:
        await consumer.stop()


@dataclass
class ChangedSystem:
    """The system, to be changed: its databases and Slack's messages are copied first."""

    origin: Origin
    stand_in_url: str
    messages: list[Json]
    databases: dict[str, str]
    copies: dict[str, str] = field(default_factory=dict)
    is_published_to: bool = field(default=False)

    @property
    def person(self) -> str:
        """The id of a person who signed up."""
        return self.origin.people[0]

    @property
    def sign_up(self) -> ConsumerRecord:
        """The record of their sign-up."""
        return next(each for each in self.origin.records if each.key == self.person.encode())

    @property
    def event_id(self) -> str:
        """The id of the event in that record."""
        return str(json.loads(self.sign_up.value)["id"])

    @property
    def addresses(self) -> Addresses:
        return Addresses(
            databases=self.databases,
            kafka_bootstrap=self.origin.cluster.kafka_bootstrap,
            slack_stand_in_url=self.stand_in_url,
        )

    async def execute(self, service: str, statements: str) -> None:
        """Change a service's database; see ``breaks`` for the names in braces."""
        account = "(SELECT id FROM accounts WHERE user_id = '{person}')"
        sign_up = "type LIKE 'users.user-signed-up.v%' AND subject = '{person}'"
        for name, stands_for in {
            "{account}": account,
            "{sign_up}": sign_up,
            "{event}": self.event_id,
            "{person}": self.person,
        }.items():
            statements = statements.replace(name, stands_for)
        connection = await asyncpg.connect(self._own_copy(service))
        try:
            await connection.execute(statements)
        finally:
            await connection.close()

    def _own_copy(self, service: str) -> str:
        """Return the URL of a copy of a database; make the copy if there is none yet."""
        if service not in self.copies:
            name = self.copies[service] = f"{service}_{uuid4().hex}"
            self.origin.cluster.create_database(name, service)
            superuser = make_url(self.origin.cluster.superuser_url).set(database=name)
            self.databases[service] = superuser.render_as_string(hide_password=False)
        return self.databases[service]

    async def publish(
        self,
        value: bytes | None,
        key: str | None,
        headers: Sequence[tuple[str, bytes]] = (),
        topic: str = "users.user",
    ) -> None:
        """Publish a record; on the person's topic, to the person's partition."""
        self.is_published_to = True
        producer = AIOKafkaProducer(bootstrap_servers=self.origin.cluster.kafka_bootstrap)
        await producer.start()
        try:
            await producer.send_and_wait(
                topic,
                value,
                key.encode() if key else None,
                partition=self.sign_up.partition if topic == self.sign_up.topic else None,
                headers=list(headers),
            )
        finally:
            await producer.stop()

    async def publish_changed(self, **changes: object) -> None:
        """Publish the person's sign-up again, with some attributes changed."""
        changed = json.loads(self.sign_up.value) | changes
        await self.publish(json.dumps(changed).encode(), str(changed["subject"]))

    async def remove_topic(self, name: str) -> None:
        self.is_published_to = True
        async with admin_client(self.origin.cluster.kafka_bootstrap) as client:
            await client.delete_topics([name])

            async def gone() -> bool:
                return (await topic_states(client, [name]))[name] is None

            await eventually(gone)


@pytest.fixture
async def system(origin: Origin) -> AsyncIterator[ChangedSystem]:
    messages = [dict(each) for each in origin.messages]

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"messages": messages})

    app = web.Application()
    app.router.add_get("/messages", answer)
    async with TestServer(app) as server:
        system = ChangedSystem(
            origin,
            str(server.make_url("/")).rstrip("/"),
            messages,
            {service: origin.cluster.postgres_url(service) for service in SERVICES},
        )
        yield system
    for name in system.copies.values():
        origin.cluster.drop_database(name)
    if system.is_published_to:
        await origin.restore_topics()
