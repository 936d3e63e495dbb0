"""Kafka and PostgreSQL as the tests use them."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from local_cluster.settings import REPOSITORY
from local_cluster.testing import RunningInfrastructure, running_infrastructure
from tests.integration.local_cluster.leftovers import kill_supervisor, processes_of
from tests.integration.local_cluster.waiting import until


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def answers(url: str) -> bool:
    try:
        return asyncio.run(query(url, "SELECT true")) is True
    except (OSError, asyncpg.PostgresError):
        return False


class TestADatabasePerTest:
    async def test_it_is_there_and_empty(self, database: str) -> None:
        tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"

        assert await query(database, "SELECT current_database()") == database.rsplit("/", 1)[1]
        assert await query(database, tables) == 0

    async def test_a_template_is_copied_whole(
        self, embedded_postgres: RunningInfrastructure, tmp_path: Path
    ) -> None:
        names = [f"{role}_{tmp_path.name}" for role in ("template", "copy")]
        template = embedded_postgres.create_database(names[0])
        await query(template, "CREATE TABLE things AS SELECT 7 AS size")

        copy = embedded_postgres.create_database(names[1], template=names[0])

        assert await query(copy, "SELECT size FROM things") == 7
        for name in names:
            embedded_postgres.drop_database(name)


class TestLogins:
    async def test_a_login_opens_its_own_database_and_may_make_tables(
        self, embedded_postgres: RunningInfrastructure
    ) -> None:
        url = embedded_postgres.postgres_url("users")

        assert await query(url, "SELECT current_user || ' in ' || current_database()") == (
            "users in users"
        )
        assert await query(url, "SELECT has_schema_privilege('public', 'CREATE')") is True

    @pytest.mark.parametrize("other", ["accounts", "postgres", "template1"])
    async def test_a_login_opens_no_other_database(
        self, embedded_postgres: RunningInfrastructure, other: str
    ) -> None:
        url = embedded_postgres.postgres_url("users").rsplit("/", 1)[0]

        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(f"{url}/{other}", "SELECT true")

    @pytest.mark.parametrize("login", ["users", "postgres"])
    async def test_no_login_works_without_its_password(
        self, embedded_postgres: RunningInfrastructure, login: str
    ) -> None:
        address = embedded_postgres.postgres_url("users").split("@")[1].split("/")[0]

        with pytest.raises(asyncpg.InvalidPasswordError):
            await query(f"postgresql://{login}:wrong@{address}/users", "SELECT true")

    def test_only_their_owner_can_read_the_passwords(
        self, embedded_postgres: RunningInfrastructure
    ) -> None:
        passwords = list((embedded_postgres.directory / "secrets").iterdir())

        assert {stat.S_IMODE(path.stat().st_mode) for path in passwords} == {0o600}


class TestServers:
    async def test_postgres_listens_on_loopback_with_short_keepalives(
        self, embedded_postgres: RunningInfrastructure
    ) -> None:
        url = embedded_postgres.superuser_url

        assert await query(url, "SHOW listen_addresses") == "127.0.0.1"
        assert await query(url, "SHOW tcp_keepalives_idle") == "5"
        assert await query(url, "SHOW tcp_user_timeout") == "10000"

    def test_nothing_listens_beyond_loopback(
        self, embedded_postgres: RunningInfrastructure, embedded_kafka: RunningInfrastructure
    ) -> None:
        for process in processes_of(embedded_postgres.directory) + processes_of(
            embedded_kafka.directory
        ):
            for each in process.net_connections("tcp"):
                if each.status == psutil.CONN_LISTEN:
                    assert each.laddr.ip in ("127.0.0.1", "::ffff:127.0.0.1")

    async def test_kafka_makes_no_topic_by_itself(self, kafka: str) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka, request_timeout_ms=1000)
        await producer.start()
        try:
            with pytest.raises(KafkaError):
                await producer.send_and_wait("not.made", b"")
        finally:
            await producer.stop()


class TestLives:
    def test_data_survives_down_and_up(self, tmp_path: Path) -> None:
        async def write(it: RunningInfrastructure) -> None:
            await query(it.postgres_url("users"), "CREATE TABLE kept AS SELECT 7 AS size")
            admin = AIOKafkaAdminClient(bootstrap_servers=it.kafka_bootstrap)
            await admin.start()
            await admin.create_topics([NewTopic("kept", 1, 1)])
            await admin.close()

        async def read(it: RunningInfrastructure) -> tuple[object, list[str]]:
            size = await query(it.postgres_url("users"), "SELECT size FROM kept")
            admin = AIOKafkaAdminClient(bootstrap_servers=it.kafka_bootstrap)
            await admin.start()
            topics = await admin.list_topics()
            await admin.close()
            return size, topics

        with running_infrastructure(tmp_path / "it") as it:
            asyncio.run(write(it))
        with running_infrastructure(tmp_path / "it") as it:
            size, topics = asyncio.run(read(it))

        assert (size, topics) == (7, ["kept"])
        assert processes_of(tmp_path / "it") == []

    def test_several_run_at_once(
        self, embedded_postgres: RunningInfrastructure, tmp_path: Path
    ) -> None:
        with running_infrastructure(tmp_path / "it", kafka=False) as other:
            assert answers(other.superuser_url)
            assert answers(embedded_postgres.superuser_url)

    def test_a_killed_server_comes_back_with_what_it_held(self, tmp_path: Path) -> None:
        with running_infrastructure(tmp_path / "it", kafka=False) as it:
            asyncio.run(query(it.postgres_url("users"), "CREATE TABLE kept AS SELECT 7 AS size"))
            first = it.processes()["postgres"].pid

            it.kill("postgres")

            until(lambda: it.processes()["postgres"].pid not in (0, first))
            until(lambda: answers(it.superuser_url))
            assert asyncio.run(query(it.postgres_url("users"), "SELECT size FROM kept")) == 7

    def test_processes_of_a_killed_supervisor_are_replaced(self, tmp_path: Path) -> None:
        directory = tmp_path / "it"
        with running_infrastructure(directory, kafka=False) as it:
            postgres = it.processes()["postgres"].pid
            kill_supervisor(directory)

            with running_infrastructure(directory, kafka=False) as again:
                assert answers(again.superuser_url)
                assert again.processes()["postgres"].pid != postgres

        assert processes_of(directory) == []


class TestSharing:
    def test_the_first_starts_it_and_the_last_to_leave_stops_it(self, tmp_path: Path) -> None:
        directory = tmp_path / "it"
        first = running_infrastructure(directory, kafka=False)
        second = running_infrastructure(directory, kafka=False)

        started, joined = first.__enter__(), second.__enter__()

        assert joined.superuser_url == started.superuser_url
        first.__exit__(None, None, None)
        assert answers(joined.superuser_url)
        second.__exit__(None, None, None)
        assert processes_of(directory) == []

    def test_when_the_test_process_is_killed_nothing_is_left(self, tmp_path: Path) -> None:
        directory = tmp_path / "it"
        code = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from local_cluster.testing import running_infrastructure\n"
            "with running_infrastructure(Path(sys.argv[1]), kafka=False):\n"
            "    print('up', flush=True)\n"
            "    time.sleep(600)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(directory)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
        ) as test_process:
            assert test_process.stdout is not None
            assert test_process.stdout.readline() == b"up\n"
            assert processes_of(directory)

            test_process.send_signal(signal.SIGKILL)

        until(lambda: not processes_of(directory))
