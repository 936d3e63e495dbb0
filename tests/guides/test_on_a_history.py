"""The patches of docs/extending.md, applied and run on a history of sign-ups."""

import asyncio
import json
import os
import re
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

from .project import Project, blocks_in, section_of

PAGE = "docs/extending.md"
HISTORY = 1_200
OF_USERS = "accounts WHERE user_id IS NOT NULL"
WITHIN_S = 90
CONTRACT_TESTS = ("test_catalogue.py", "test_published_versions.py")


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[str]:
    """A broker for one test alone, since its topics have the catalogue's names."""
    with running_infrastructure(tmp_path / "extending", postgres=False) as infrastructure:
        yield infrastructure.kafka_bootstrap


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


def patches_of(section: str) -> dict[str, list[str]]:
    """Return the patches of each step of a section; a step has a bold number and title."""
    steps = re.split(r"^\*\*\d\. (.*?)\.?\*\*", section_of(PAGE, section), flags=re.MULTILINE)
    titles_and_texts = zip(steps[1::2], steps[2::2], strict=True)
    return {
        title: [text for language, text in blocks_in(step) if language == "diff"]
        for title, step in titles_and_texts
    }


def apply(project: Project, patches: Sequence[str]) -> None:
    assert patches
    for patch in patches:
        project.run("git", "apply", "-", given=patch)


def add_the_second_subscriber(project: Project) -> None:
    apply(
        project,
        [each for step in patches_of("A second subscriber to an event").values() for each in step],
    )


@pytest.mark.timeout(300)
async def test_a_new_subscriber_handles_the_whole_history_and_the_other_none_of_it_again(
    project: Project, database: str, kafka: str
) -> None:
    async with admin_client(kafka) as client:
        await create_topics(client, brokers=1)
    first_day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    moments = [first_day + timedelta(hours=number % 50) for number in range(HISTORY)]
    accounts = Accounts(project.root, database, kafka)
    await accounts.migrate()
    await publish(kafka, [sign_up(moment) for moment in moments])

    async def opened(number: int) -> bool:
        return await accounts.number_of(OF_USERS) == number and (await published(kafka) == number)

    async with accounts.running():
        await accounts.until("an account for each", lambda: opened(HISTORY))

    add_the_second_subscriber(project)
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


# Signs users up as the users service does, and prints the rows of its outbox.
_PUBLISH = """
import base64, json, sys
from datetime import UTC, datetime
from chassis.correlation import new_id
from chassis.domain import Aggregate
from chassis.persistence.outbox import Outbox
from contracts.topics import USERS_USER
from users_service.application.integration_events import translate
from users_service.domain.user import UserSignedUp
from users_service.domain.values import Username

now = datetime.now(UTC)
for number in range(int(sys.argv[1])):
    user = Aggregate(new_id())
    user._record(UserSignedUp(user.id, Username(f"ada{number}"), occurred_at=now))
    outbox = Outbox("/users", lambda: now)
    outbox.append_events_of(user, topic=USERS_USER, translate=translate)
    rows = outbox.take_rows()
    print(json.dumps([[r["aggregateid"], r["payload"].decode(), r["headers"]] for r in rows]))
"""


def run_in(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the tree, and in nothing else of ours."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, check=False, capture_output=True, text=True
    )


def sign_ups_of(tree: Path, number: int) -> list[list[EncodedEvent]]:
    """Return what the users service of a tree publishes of each of so many sign-ups."""
    done = run_in(tree, "-c", _PUBLISH, str(number))
    assert done.returncode == 0, done.stderr
    return [
        [
            EncodedEvent(
                key.encode(), payload.encode(), [(k, v.encode()) for k, v in headers.items()]
            )
            for key, payload, headers in json.loads(line)
        ]
        for line in done.stdout.splitlines()
    ]


def contract_tests(tree: Path) -> subprocess.CompletedProcess[str]:
    paths = [f"tests/contract/{name}" for name in CONTRACT_TESTS]
    return run_in(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *paths)


@pytest.mark.timeout(300)
class TestANewVersion:
    async def test_is_handled_once_by_a_reader_that_moves_to_it_at_any_moment(
        self, project: Project, database: str, kafka: str
    ) -> None:
        steps = patches_of("A new version of an event")
        async with admin_client(kafka) as client:
            await create_topics(client, brokers=1)
        accounts = Accounts(project.root, database, kafka)
        await accounts.migrate()

        async def opened(number: int) -> bool:
            return await accounts.number_of(OF_USERS) == number

        old = sign_ups_of(project.root, 200)
        apply(project, [*steps["The contract"], *steps["Publish both"]])
        both = sign_ups_of(project.root, 600)
        assert {len(each) for each in both} == {2}
        divided, together = both[:100], both[100:]
        # Of these the reader is moved between the two versions.
        first, second = zip(*divided, strict=True)
        await publish(kafka, first)
        async with accounts.running():
            await accounts.until("an account for each V1", lambda: opened(100))
            # Of these it is moved somewhere.
            await publish(kafka, [event for each in [*together, *old] for event in each])

            async def some_more() -> bool:
                return await accounts.number_of(OF_USERS) > 100

            await accounts.until("some more accounts", some_more)

        apply(project, steps["Move the readers"])
        await publish(kafka, second)
        apply(project, steps["End the old version"])
        await publish(kafka, [event for each in sign_ups_of(project.root, 100) for event in each])
        async with accounts.running():
            await accounts.until("an account for each sign-up", lambda: opened(900))

            async def all_published() -> bool:
                return await published(kafka) == 900

            await accounts.until("an event of each account", all_published)
            await accounts.until("every event read", lambda: all_is_read(accounts, kafka))
        assert await opened(900)
        assert await accounts.number_of("parked") == 0
        assert await accounts.number_of("inbox_missing") == 0
        assert await accounts.rows("SELECT FROM inbox WHERE handled_sequences IS NOT NULL") == []

    def test_ends_the_old_one_when_every_reader_has_a_handler_for_it(
        self, project: Project
    ) -> None:
        steps = patches_of("A new version of an event")
        apply(project, [*steps["The contract"], *steps["Publish both"]])
        generated = run_in(project.root, "-m", "contracts", "generate")
        assert generated.returncode == 0, generated.stdout
        assert contract_tests(project.root).returncode == 0

        apply(project, steps["End the old version"])
        refused = contract_tests(project.root)
        apply(project, steps["Move the readers"])
        taken = contract_tests(project.root)

        assert refused.returncode == 1
        for reader in (
            "accounts.know-owners",
            "accounts.open-account",
            "users.create-onboarding-tasks",
            "notification.plan-deliveries",
        ):
            assert f"{reader} takes users.user-signed-up.v1" in refused.stdout
        assert taken.returncode == 0, taken.stdout


async def all_is_read(accounts: Accounts, kafka: str) -> bool:
    """Return whether the service's progress is at the end of every partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition(USERS_USER.name, n) for n in range(USERS_USER.partitions)]
        ends = await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
    read = await accounts.rows(
        "SELECT partition, min(next_offset) FROM progress GROUP BY partition"
    )
    return {each.partition: end for each, end in ends.items()} == dict(read)
