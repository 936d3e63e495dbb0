"""A broker that wants to know who asks: by a password or a certificate, always over TLS."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeAclsRequest
from aiokafka.protocol.metadata import MetadataRequest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from chassis.consuming.cluster_check import ClusterCheck
from chassis.kafka.__main__ import main
from chassis.kafka.acls import create_acls
from chassis.kafka.client import KafkaSecurity, admin_client
from chassis.kafka.topics import create_topics, topic_states
from chassis.publishing.producer import RowProducer
from chassis.settings import BAD_SETTINGS_EXIT_CODE, KafkaSettings, ServiceSettings
from chassis.testing import eventually
from contracts.acls import Acl, Operation, Pattern, Resource, acls_of
from contracts.topics import TOPICS, USERS_USER
from local_cluster.java import find_java
from local_cluster.kafka import Kafka
from local_cluster.kafka_artifacts import kafka_jars
from local_cluster.ports import free_port
from local_cluster.settings import Settings
from tests.certificates import Authority
from tests.connections import connections_of_an_ended_loop  # noqa: F401 - for all tests here
from tests.integration.chassis.path import settings_for, topic_of_its_own

OPERATOR, STRANGER = "operator", "stranger"


@dataclass(frozen=True)
class SecuredBroker:
    """The operator may do anything; the stranger may write to one topic, and see no other."""

    authority: Authority
    sasl: str
    ssl: str

    def user(self, name: str) -> dict[str, Any]:
        """Return the settings with which a user signs in."""
        return {
            "kafka_bootstrap": self.sasl,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": name,
            "kafka_sasl_password": SecretStr(f"{name}-password"),
            "kafka_ca_file": self.authority.ca_file,
        }

    def certified(self, directory: Path, name: str) -> dict[str, Any]:
        """Return the settings of a client with a certificate."""
        own = Authority(directory, f"{name}-ca") if name == STRANGER else self.authority
        signed = own.sign(name)
        return {
            "kafka_bootstrap": self.ssl,
            "kafka_security_protocol": "SSL",
            "kafka_ca_file": self.authority.ca_file,
            "kafka_certificate_file": signed.certificate,
            "kafka_key_file": signed.key,
        }


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    directory = tmp_path_factory.mktemp("secured")
    authority = Authority(directory, "ca")
    server = authority.sign("broker", "127.0.0.1")
    key_store = directory / "broker.pem"
    key_store.write_bytes(server.key.read_bytes() + server.certificate.read_bytes())
    inside, controller, sasl, ssl = (free_port() for _ in range(4))
    users = " ".join(f'user_{each}="{each}-password"' for each in (OPERATOR, STRANGER))
    listeners = {"PLAINTEXT": inside, "SASL_SSL": sasl, "SSL": ssl}
    advertised = ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
    kafka = Kafka(
        directory,
        inside,
        controller,
        find_java(),
        kafka_jars(Settings().cache_directory, lambda _: None),
        ("-XX:TieredStopAtLevel=1",),
        {
            "listeners": f"{advertised},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": advertised,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            "SASL_SSL:SASL_SSL,SSL:SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(key_store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.ca_file),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common"
            ".security.scram.ScramLoginModule required;",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": "org.apache.kafka.common.security"
            f".plain.PlainLoginModule required {users};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{OPERATOR};User:CN={OPERATOR}",
        },
    )
    kafka.prepare()
    spec = kafka.spec()
    with closing((directory / "kafka.log").open("wb")) as log:
        process = subprocess.Popen(spec.argv, cwd=spec.cwd, stdout=log, stderr=log)
    try:
        asyncio.run(kafka.wait_until_up())
        # A producer may be opened by one who may write to any topic.
        subprocess.run(
            kafka.tool(
                "org.apache.kafka.tools.AclCommand",
                *("--bootstrap-server", f"127.0.0.1:{inside}", "--add", "--topic", "test.other"),
                *("--allow-principal", f"User:{STRANGER}", "--operation", "Write"),
            ),
            check=True,
            capture_output=True,
        )
        yield SecuredBroker(authority, f"127.0.0.1:{sasl}", f"127.0.0.1:{ssl}")
    finally:
        process.kill()
        process.wait()


def run(settings: dict[str, Any], command: str, *options: str) -> Result:
    """Run a command as a user, whose settings are in the environment."""
    environment = {
        name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings.items()
        if name != "kafka_bootstrap"
    }
    arguments = [command, "--bootstrap", settings["kafka_bootstrap"], *options]
    return CliRunner().invoke(main, arguments, env=environment)


def service_settings(user: dict[str, Any]) -> ServiceSettings:
    others = {name: value for name, value in user.items() if name != "kafka_bootstrap"}
    return settings_for("postgresql://nobody@127.0.0.1:1/none", user["kafka_bootstrap"], **others)


async def replicas_of(settings: dict[str, Any], topic: str) -> int:
    security = KafkaSecurity.of(KafkaSettings(**settings))
    async with admin_client(settings["kafka_bootstrap"], security) as client:
        state = (await topic_states(client, [topic]))[topic]
    assert state is not None
    return state.replication_factor


def behind(client: AIOKafkaAdminClient, request: type, *, answers: int) -> list[object]:
    """Let the client see so many answers to such a request as the first one was.

    A broker answers like that while it has not read the newest changes of the cluster. Returns a
    list that grows with each answer.
    """
    seen: list[object] = []
    send = client._send_request

    async def sent(what: object, *args: object) -> object:
        answer = await send(what, *args)
        if not isinstance(what, request):
            return answer
        seen.append(answer)
        return seen[0] if len(seen) <= answers else answer

    client._send_request = sent
    return seen


class TestCreatingTopics:
    def test_is_refused_to_one_who_may_not_and_done_for_one_who_may_as_often_as_it_is_told(
        self, broker: SecuredBroker
    ) -> None:
        forbidden = run(broker.user(STRANGER), "create-topics")
        too_many = run(broker.user(OPERATOR), "create-topics", "--replicas", "3")
        done = run(broker.user(OPERATOR), "create-topics", "--replicas", "1")

        assert forbidden.exit_code == 1
        assert "TopicAuthorizationFailedError: " in forbidden.output
        assert USERS_USER.name in forbidden.output
        assert too_many.exit_code == 1
        assert "InvalidReplicationFactorError: " in too_many.output
        assert done.output == f"created {', '.join(each.name for each in TOPICS)}\n"
        assert asyncio.run(replicas_of(broker.user(OPERATOR), USERS_USER.name)) == 1

    async def test_ends_once_the_broker_shows_them_which_may_be_later_than_its_answer(
        self, broker: SecuredBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = topic_of_its_own()
        monkeypatch.setattr("chassis.kafka.topics.TOPICS", [topic])
        security = KafkaSecurity.of(KafkaSettings(**broker.user(OPERATOR)))
        async with admin_client(broker.sasl, security) as client:
            seen = behind(client, MetadataRequest, answers=3)

            created = await create_topics(client, brokers=1)

        assert created == [topic.name]
        assert len(seen) > 3


class TestCreatingAcls:
    def test_is_refused_to_one_who_may_not_and_done_once_for_one_who_may(
        self, broker: SecuredBroker
    ) -> None:
        forbidden = run(broker.user(STRANGER), "create-acls")
        done = run(broker.user(OPERATOR), "create-acls")
        again = run(broker.user(OPERATOR), "create-acls")

        assert forbidden.exit_code == 1
        assert "ClusterAuthorizationFailedError" in forbidden.output
        assert done.output == f"created {len(acls_of())} ACLs\n"
        assert again.output == "every ACL exists already\n"

    async def test_ends_once_the_broker_shows_them_which_may_be_later_than_its_answer(
        self, broker: SecuredBroker
    ) -> None:
        acl = Acl("late", Resource.TOPIC, "late", Operation.READ)
        security = KafkaSecurity.of(KafkaSettings(**broker.user(OPERATOR)))
        async with admin_client(broker.sasl, security) as client:
            seen = behind(client, DescribeAclsRequest, answers=3)

            created = await create_acls(client, [acl])
            again = await create_acls(client, [acl])

        assert created.created == [acl]
        assert again.created == []
        assert len(seen) > 3

    async def test_shows_what_else_its_logins_and_others_at_its_topics_may_do_and_removes_nothing(
        self, broker: SecuredBroker
    ) -> None:
        others = [
            Acl("users", Resource.TOPIC, "test.", Operation.READ, Pattern.PREFIXED),
            Acl("*", Resource.GROUP, "test.", Operation.READ, Pattern.PREFIXED),
            Acl("stranger", Resource.TOPIC, "users.user", Operation.READ),
        ]
        elsewhere = Acl("stranger", Resource.TOPIC, "weather", Operation.READ)
        security = KafkaSecurity.of(KafkaSettings(**broker.user(OPERATOR)))
        async with admin_client(broker.sasl, security) as client:
            await create_acls(client, [*others, elsewhere])

            for _ in range(2):
                granted = await create_acls(client, acls_of())
                assert granted.others == [
                    "User:* from * may READ GROUP test.*",
                    "User:stranger from * may READ TOPIC users.user",
                    "User:users from * may READ TOPIC test.*",
                ]


class TestCreatingLogins:
    def test_lets_one_sign_in_with_the_password_that_it_was_given_last(
        self, broker: SecuredBroker, tmp_path: Path
    ) -> None:
        file = tmp_path / "password"
        for password in ("first", "second"):
            file.write_text(f"{password}\n")
            made = run(
                broker.user(OPERATOR), "create-logins", "--password-file", "reader", str(file)
            )
            assert made.output == "set the passwords of reader\n"

        # The broker may answer before it knows the new password.
        asyncio.run(eventually(lambda: signs_in(broker, "reader", "second"), despite=(KafkaError,)))
        with pytest.raises(KafkaError):
            asyncio.run(signs_in(broker, "reader", "first"))

    @pytest.mark.parametrize("content", [None, "\n"])
    def test_with_a_file_that_holds_no_password_changes_nothing(
        self, broker: SecuredBroker, tmp_path: Path, content: str | None
    ) -> None:
        file = tmp_path / "password"
        if content is not None:
            file.write_text(content)

        refused = run(
            broker.user(OPERATOR), "create-logins", "--password-file", "reader", str(file)
        )

        assert refused.exit_code == BAD_SETTINGS_EXIT_CODE
        assert str(file) in refused.output


async def signs_in(broker: SecuredBroker, login: str, password: str) -> bool:
    settings = broker.user(login) | {
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_password": SecretStr(password),
    }
    async with admin_client(broker.sasl, KafkaSecurity.of(KafkaSettings(**settings))):
        return True


class TestACertificate:
    async def test_of_the_brokers_authority_lets_a_client_in_and_no_other_does(
        self, broker: SecuredBroker, tmp_path: Path
    ) -> None:
        ours, others = (
            KafkaSecurity.of(KafkaSettings(**broker.certified(tmp_path, each)))
            for each in (OPERATOR, STRANGER)
        )

        async with admin_client(broker.ssl, ours) as client:
            assert await topic_states(client, ["no.such"]) == {"no.such": None}
        with pytest.raises((KafkaError, OSError)):
            async with admin_client(broker.ssl, others):
                pass

    async def test_of_another_authority_than_ours_is_not_accepted_from_a_broker(
        self, broker: SecuredBroker, tmp_path: Path
    ) -> None:
        other = broker.user(OPERATOR) | {"kafka_ca_file": Authority(tmp_path, "other").ca_file}

        with pytest.raises((KafkaError, OSError)):
            async with admin_client(broker.sasl, KafkaSecurity.of(KafkaSettings(**other))):
                pass


class TestAForbiddenTopic:
    @pytest.mark.parametrize(
        ("user", "reason"),
        [
            (OPERATOR, "topic {} is missing"),
            (STRANGER, "forbidden to this user, who may not describe it: {}"),
        ],
    )
    async def test_is_not_reported_as_a_missing_one_to_a_worker(
        self, broker: SecuredBroker, user: str, reason: str
    ) -> None:
        topic = topic_of_its_own()
        check = ClusterCheck(service_settings(broker.user(user)), "test", [topic])
        try:
            assert await check.look() == reason.format(topic.name)
        finally:
            await check.close()

    @pytest.mark.parametrize(("user", "forbidden"), [(OPERATOR, False), (STRANGER, True)])
    async def test_is_not_taken_for_a_missing_one_by_the_relay(
        self, broker: SecuredBroker, user: str, *, forbidden: bool
    ) -> None:
        producer = await RowProducer.open(service_settings(broker.user(user)))
        try:
            assert not await producer.has_topic("test.none")
            assert producer.is_hidden("test.none") == forbidden
        finally:
            await producer.close()
