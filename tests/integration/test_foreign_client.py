"""The reader that contracts/README.md shows in JavaScript, run with a client that is not ours."""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from chassis.correlation import new_id
from chassis.testing import eventually
from contracts.envelope import EncodedEvent, encode
from contracts.events import IntegrationEvent
from contracts.topics import Topic
from contracts.users import TaskCreatedV1, UserSignedUpV1
from local_cluster.settings import REPOSITORY, Settings
from tests.integration.chassis.path import create_topic, topic_of_its_own

PAGE: Final = (REPOSITORY / "contracts" / "README.md").read_text(encoding="utf-8")
(SHOWN,) = re.findall(r"^```js\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
PACKAGES: Final = Path(__file__).with_name("foreign_client")
INSTALL_WITHIN_S: Final = 60


@pytest.fixture(scope="session")
def packages() -> Path:
    """The directory with kafkajs and pg, installed once for each user of this machine."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are missing, so the reader in JavaScript is not run")
    cache = Settings().cache_directory / "foreign-client"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = (PACKAGES / "package-lock.json").read_text()
        installed = cache / "package-lock.json"
        if not (installed.exists() and installed.read_text() == wanted):
            shutil.copy(PACKAGES / "package.json", cache)
            (cache / "npm-shrinkwrap.json").write_text(wanted)
            _install(cache)
            installed.write_text(wanted)
    return cache


def _install(directory: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(
            command, cwd=directory, check=True, capture_output=True, timeout=INSTALL_WITHIN_S
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm could not install kafkajs and pg, so the reader in JavaScript is not run")


@pytest.fixture
def program(tmp_path: Path, packages: Path) -> Path:
    """The program of the page, beside its packages."""
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    file = tmp_path / "reader.js"
    file.write_text(SHOWN)
    return file


@pytest.fixture
async def tables(database: str) -> str:
    """The database with the tables that the program's first lines create."""
    statements = re.findall(r"CREATE TABLE .*?;", SHOWN)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("".join(statements))
    finally:
        await connection.close()
    return database


@pytest.fixture
async def topic(kafka: str) -> Topic:
    topic = topic_of_its_own(partitions=1)
    await create_topic(kafka, topic)
    return topic


class Published:
    """What a publisher sends about one subject; ids grow with time."""

    def __init__(self) -> None:
        self.subject = uuid4()

    def event(self, sequence: int, event: IntegrationEvent | None = None) -> EncodedEvent:
        return encode(
            event or UserSignedUpV1(user_id=self.subject, username=f"n{sequence}"),
            id=new_id(),
            source="/users",
            subject=str(self.subject),
            time=datetime.now(UTC),
            sequence=sequence,
            correlationid="request",
        )


async def publish(kafka: str, topic: Topic, events: Sequence[EncodedEvent | bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for each in events:
            if isinstance(each, bytes):
                await producer.send_and_wait(topic.name, each)
            else:
                await producer.send_and_wait(topic.name, each.payload, each.key)
    finally:
        await producer.stop()


@asynccontextmanager
async def reading(program: Path, kafka: str, topic: Topic, database: str) -> AsyncIterator[None]:
    """Run the program during the block, and kill it at the end."""
    environment = {
        "KAFKA": kafka,
        "TOPIC": topic.name,
        "GROUP": f"others.{topic.name}",
        "DATABASE_URL": database,
        "KAFKAJS_NO_PARTITIONER_WARNING": "1",
    }
    log = program.with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting it takes no time
            ["node", program],  # noqa: S607 - the node on the path
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


async def rows(database: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(database)
    try:
        return [tuple(each) for each in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


async def test_it_handles_each_event_once_and_in_order(
    program: Path, kafka: str, topic: Topic, tables: str
) -> None:
    ada, bob = Published(), Published()
    third = ada.event(3)
    second = ada.event(2)
    task = TaskCreatedV1(task_id=uuid4(), assignee_id=ada.subject, name="Rest")
    before_the_backup = bob.event(1)
    await publish(
        kafka,
        topic,
        [
            ada.event(1),
            second,
            second,  # a repeat
            ada.event(5),  # after a gap
            third,  # late
            ada.event(6, task),  # not wanted, and counted
            ada.event(7),
            b"no event",
            before_the_backup,
            bob.event(1),  # another history
            bob.event(2),
        ],
    )
    # In the order in which they were written.
    welcomed = "SELECT username FROM welcomed WHERE user_id = $1 ORDER BY ctid"
    kept = 'SELECT subject, why FROM kept ORDER BY "offset"'
    seen = "SELECT last, missing FROM inbox WHERE subject = $1"
    subject = str(bob.subject)

    async def all_is_read() -> bool:
        return len(await rows(tables, kept)) == 3

    async with reading(program, kafka, topic, tables):
        await eventually(all_is_read, within_s=60)

    expected = [("n1",), ("n2",), ("n5",), ("n3",), ("n7",)]
    assert await rows(tables, welcomed, ada.subject) == expected
    assert await rows(tables, welcomed, bob.subject) == [("n1",)]
    assert await rows(tables, kept) == [
        (None, "no event"),
        (subject, "forked"),
        (subject, "behind"),
    ]
    assert await rows(tables, seen, str(ada.subject)) == [(7, [4])]

    # It was killed. What it committed is not handled again, and what comes now is.
    await publish(kafka, topic, [second, ada.event(8)])

    async def the_new_one_is_handled() -> bool:
        return await rows(tables, seen, str(ada.subject)) == [(8, [4])]

    async with reading(program, kafka, topic, tables):
        await eventually(the_new_one_is_handled, within_s=60)

    assert await rows(tables, welcomed, ada.subject) == [*expected, ("n8",)]
