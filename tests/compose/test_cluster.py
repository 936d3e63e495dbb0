"""compose.cluster.yml: three brokers, of which one may die, and what each login is refused."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from pydantic import SecretStr

from chassis.kafka.acls import create_acls
from chassis.kafka.client import KafkaSecurity, admin_client
from chassis.kafka.topics import topic_states
from chassis.settings import KafkaSettings
from chassis.testing import eventually
from contracts.acls import acls_of
from contracts.topics import ACCOUNTS_ACCOUNT, TOPICS, USERS_TASK, USERS_USER
from tests.certificates import Authority
from tests.compose.outcome import has_arrived, nothing_is_lost
from tests.compose.system import CLUSTER, System, health_of, running_system
from tests.connections import connections_of_an_ended_loop  # noqa: F401 - for all tests here
from tests.declared import declared
from tests.e2e.people import Operator, Person, poll
from tests.faults.workload import Workload

pytestmark = pytest.mark.timeout(900)

#: Sign-ups that are answered while a broker is down.
ANSWERED_MEANWHILE = 60


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Every container of three brokers, healthy, on free ports."""
    with running_system(CLUSTER) as running:
        yield running


class Client:
    """A client on this machine, with the login of the accounts service."""

    login = "accounts"

    def __init__(self, system: System, directory: Path) -> None:
        ca_file = directory / "ca.pem"
        ca_file.write_text(system.secret(self.login, "kafka_ca_file"))
        self._settings: dict[str, Any] = {
            "kafka_bootstrap": system.kafka_bootstrap,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_username": self.login,
            "kafka_sasl_password": SecretStr(system.secret(self.login, "kafka_sasl_password")),
            "kafka_ca_file": ca_file,
        }

    def _arguments(self) -> dict[str, Any]:
        settings = KafkaSettings(**self._settings)
        security = KafkaSecurity.of(settings).client_arguments()
        return {"bootstrap_servers": settings.kafka_bootstrap, **security}

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        async with asyncio.timeout(60), AIOKafkaProducer(**self._arguments()) as producer:
            yield producer

    @asynccontextmanager
    async def consumer(self, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            group_id=group, auto_offset_reset="earliest", **self._arguments()
        )
        async with asyncio.timeout(60), consumer:
            yield consumer

    async def look_at(self, topic: str, **others: Any) -> None:
        """Sign in, and ask for a topic and its configuration."""
        async with self._admin(**others) as client:
            assert (await topic_states(client, [topic]))[topic]

    async def grant_itself_more(self) -> None:
        """Ask for all rights of the catalogue, as only the administrator may."""
        async with self._admin() as client:
            await create_acls(client, acls_of())

    def _admin(self, **others: Any) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
        settings = KafkaSettings(**self._settings | others)
        return admin_client(settings.kafka_bootstrap, KafkaSecurity.of(settings))


@pytest.fixture
def accounts(system: System, tmp_path: Path) -> Client:
    """A client with the login of the accounts service."""
    return Client(system, tmp_path)


class TestUp:
    def test_ends_with_everything_healthy_and_every_job_done(self, system: System) -> None:
        found = {
            each["Config"]["Labels"]["com.docker.compose.service"]: each
            for each in system.containers()
        }

        assert {name for name, each in found.items() if health_of(each) == "healthy"} == (
            system.staying
        )
        jobs = {name: each["State"] for name, each in found.items() if name not in system.staying}
        assert {(each["Status"], each["ExitCode"]) for each in jobs.values()} == {("exited", 0)}

    def test_again_creates_nothing(self, system: System) -> None:
        printed = system.compose("run", "--rm", "--no-deps", "topics")

        assert "every topic exists already" in printed
        assert "every ACL exists already" in printed

    async def test_shows_a_sign_up_as_an_account_an_audit_record_and_a_message(
        self, system: System, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        person = Person(gateway)
        await person.sign_up()

        await has_arrived(operator, person)
        if declared("notification"):
            await poll(lambda: slack_messages(system, person))


async def slack_messages(system: System, person: Person) -> list[str]:
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"{system.slack_url}/messages")
    texts: list[str] = [each["text"] for each in answer.json()["messages"]]
    return [each for each in texts if person.username in each]


class TestALogin:
    async def test_writes_its_own_topic_and_reads_what_it_subscribes_to_in_its_own_group(
        self, accounts: Client, gateway: httpx.AsyncClient
    ) -> None:
        await Person(gateway).sign_up()

        async with accounts.producer() as producer:
            assert await producer.partitions_for(ACCOUNTS_ACCOUNT.name)
        async with accounts.consumer("accounts") as consumer:
            consumer.subscribe([USERS_USER.name])
            await consumer.committed(TopicPartition(USERS_USER.name, 0))
        async with accounts.consumer() as consumer:
            consumer.assign(partitions_of(USERS_USER.name))
            assert (await consumer.getone()).topic == USERS_USER.name

    @pytest.mark.parametrize("topic", [each.name for each in TOPICS if each.owner != "accounts"])
    async def test_may_not_write_to_the_topic_of_another(
        self, accounts: Client, topic: str
    ) -> None:
        async with accounts.producer() as producer:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(topic, b"{}")

    async def test_may_not_read_the_topic_that_it_writes(self, accounts: Client) -> None:
        async with accounts.consumer() as consumer:
            consumer.assign(partitions_of(ACCOUNTS_ACCOUNT.name))
            with pytest.raises(TopicAuthorizationFailedError):
                await consumer.getone()

    async def test_may_not_even_see_a_topic_of_another_that_it_does_not_subscribe_to(
        self, accounts: Client
    ) -> None:
        with pytest.raises(TopicAuthorizationFailedError):
            await accounts.look_at(USERS_TASK.name)

    async def test_may_not_join_the_group_of_another(self, accounts: Client) -> None:
        async with accounts.consumer("users") as consumer:
            consumer.subscribe([USERS_USER.name])
            with pytest.raises(GroupAuthorizationFailedError):
                await consumer.getone()

    async def test_may_not_give_itself_rights(self, accounts: Client) -> None:
        with pytest.raises(ClusterAuthorizationFailedError):
            await accounts.grant_itself_more()


def partitions_of(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(8)]


class TestABroker:
    async def test_takes_a_client_with_the_right_password_and_authority(
        self, accounts: Client
    ) -> None:
        await accounts.look_at(USERS_USER.name)

    async def test_refuses_a_wrong_password(self, accounts: Client) -> None:
        with pytest.raises(KafkaError):
            await accounts.look_at(USERS_USER.name, kafka_sasl_password=SecretStr("wrong"))

    async def test_refuses_a_client_in_the_clear(self, accounts: Client) -> None:
        with pytest.raises(KafkaConnectionError):
            await accounts.look_at(USERS_USER.name, kafka_security_protocol="SASL_PLAINTEXT")

    async def test_is_refused_by_a_client_that_knows_another_authority(
        self, accounts: Client, tmp_path: Path
    ) -> None:
        with pytest.raises(KafkaConnectionError):
            await accounts.look_at(
                USERS_USER.name, kafka_ca_file=Authority(tmp_path, "other").ca_file
            )

    def test_takes_no_service_for_another_broker(self, system: System) -> None:
        """Its own listener, where the administrator signs in, wants a certificate."""
        command = "KAFKA_SECURITY_PROTOCOL=SSL KAFKA_CA_FILE=/run/secrets/accounts/kafka_ca_file"
        command += " python -m chassis.kafka create-acls --bootstrap=kafka:9092 2>&1 || true"

        printed = system.compose("exec", "-T", "accounts", "sh", "-c", command)

        assert printed.endswith("kafka:9092: KafkaConnectionError\n")

    async def test_that_is_killed_under_load_is_missed_by_nobody_and_nothing_is_lost(
        self, system: System, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        load = Workload(system.gateway_url)
        async with load.at(per_second=3):
            await asyncio.to_thread(system.compose, "kill", "kafka-2")
            before = len(load.promised)

            async def are_answered() -> bool:
                return len(load.promised) >= before + ANSWERED_MEANWHILE

            await eventually(are_answered, within_s=120, every_s=1)
            person = Person(gateway)
            await person.sign_up()
            await poll(lambda: operator.account_of(person))
            await asyncio.to_thread(system.compose, "start", "kafka-2")
            await system.healthy()

        await nothing_is_lost(system, operator, load)
