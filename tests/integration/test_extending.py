"""The patches of docs/extending.md, applied and run on a history of sign-ups."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chassis.correlation import new_id
from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from contracts.envelope import EncodedEvent, encode
from contracts.topics import ACCOUNTS_ACCOUNT, USERS_USER
from contracts.users import UserSignedUpV1
from local_cluster.testing import running_infrastructure

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "extending.md"
HISTORY = 1_200
WITHIN_S = 90


@pytest.fixture(scope="module")
def kafka(run_directory: Path) -> Iterator[str]:
    """A broker for this test alone, since its topics have the catalogue's names."""
    with running_infrastructure(run_directory / "extending", postgres=False) as infrastructure:
        yield infrastructure.kafka_bootstrap


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages that the accounts service needs, to apply the patches to."""
    copy = tmp_path / "tree"
    for package in ("contracts", "chassis", "accounts_service"):
        shutil.copytree(ROOT / package, copy / package)
    return copy


def sign_up(moment: datetime) -> EncodedEvent:
    user_id = new_id()
    return encode(
        UserSignedUpV1(user_id=user_id, username="ada"),
        id=new_id(),
        source="/users",
        subject=str(user_id),
        time=moment,
        sequence=1,
        correlationid="extending",
    )


async def publish(kafka: str, events: Sequence[EncodedEvent]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    await producer.start()
    try:
        for each in events:
            await producer.send(
                USERS_USER.name, value=each.payload, key=each.key, headers=each.headers
            )
        await producer.flush()
    finally:
        await producer.stop()


async def published(kafka: str) -> int:
    """Return how many events the accounts service has published."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(ACCOUNTS_ACCOUNT.name, number)
            for number in range(ACCOUNTS_ACCOUNT.partitions)
        ]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


class Accounts:
    """The accounts service, run from a tree, and its database."""

    def __init__(self, tree: Path, database: str, kafka: str) -> None:
        self._tree = tree
        self._database = database
        self._environment = os.environ | {
            "ACCOUNTS_DATABASE_URL": database,
            "ACCOUNTS_KAFKA_BOOTSTRAP": kafka,
            "ACCOUNTS_ROLES": "agents,relay",
            "ACCOUNTS_ENVIRONMENT": "development",
            "ACCOUNTS_HTTP_PORT": "0",
            "ACCOUNTS_JWKS_URL": "http://127.0.0.1:1/",
            "ACCOUNTS_IDEMPOTENCY_SECRET": "s" * 32,
        }
        self._log = tree.parent / "accounts.log"

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "accounts_service", *arguments),
                cwd=self._tree,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    async def migrate(self) -> None:
        process = await self._start("migrate")
        assert await process.wait() == 0, self._log.read_text()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the service during the block; it must stop without a failure."""
        process = await self._start()
        try:
            yield
            assert process.returncode is None, self._log.read_text()
            process.terminate()
            assert await process.wait() == 0, self._log.read_text()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the condition holds; if it does not in time, fail with the service's log."""
        try:
            async with asyncio.timeout(WITHIN_S):
                while not await holds():  # noqa: ASYNC110 - another process brings it about
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"not within {WITHIN_S} s: {what}\n{self._log.read_text()}")

    async def rows(self, query: str) -> list[Any]:
        connection = await asyncpg.connect(self._database)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def number_of(self, table: str) -> int:
        return int((await self.rows(f"SELECT count(*) FROM {table}"))[0][0])  # noqa: S608

    async def per_day(self) -> dict[date, int]:
        return dict(await self.rows("SELECT day, count FROM sign_ups"))


def apply_the_patches(tree: Path) -> None:
    patches = re.findall(r"^```diff\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert patches
    for patch in patches:
        subprocess.run(
            ["git", "apply", "-"],  # noqa: S607 - the git on the path
            cwd=tree,
            # Git must not find a repository around the tree.
            env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)},
            input=patch,
            text=True,
            check=True,
        )


@pytest.mark.timeout(300)
async def test_a_new_subscriber_handles_the_whole_history_and_the_other_none_of_it_again(
    tree: Path, database: str, kafka: str
) -> None:
    async with admin_client(kafka) as client:
        await create_topics(client, brokers=1)
    first_day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    moments = [first_day + timedelta(hours=number % 50) for number in range(HISTORY)]
    accounts = Accounts(tree, database, kafka)
    await accounts.migrate()
    await publish(kafka, [sign_up(moment) for moment in moments])

    async def opened(number: int) -> bool:
        return await accounts.number_of("accounts") == number and (await published(kafka) == number)

    async with accounts.running():
        await accounts.until("an account for each", lambda: opened(HISTORY))

    apply_the_patches(tree)
    await accounts.migrate()

    per_day = Counter(moment.date() for moment in moments)
    async with accounts.running():

        async def counted() -> bool:
            return await accounts.per_day() == per_day

        await accounts.until("every sign-up of the history counted", counted)
        assert await opened(HISTORY)

        await publish(kafka, [sign_up(first_day)])
        per_day[first_day.date()] += 1
        await accounts.until("a new sign-up counted", counted)
        await accounts.until("an account opened for it", lambda: opened(HISTORY + 1))
    assert await accounts.number_of("parked") == 0
    assert await accounts.number_of("inbox_missing") == 0


def test_the_revision_creates_the_declared_tables(tree: Path, database: str) -> None:
    apply_the_patches(tree)
    # In a process of its own, which imports the changed tree only.
    script = (
        "import sys; from alembic import command; from chassis.migrations import config_of; "
        "config = config_of('accounts_service', sys.argv[1]); "
        "command.upgrade(config, 'heads'); command.check(config)"
    )
    subprocess.run([sys.executable, "-c", script, database], cwd=tree, check=True)
