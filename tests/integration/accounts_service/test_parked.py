"""What the service could not handle, repaired on its command line: nothing else of it runs."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from accounts_service.adapters.tables import accounts
from accounts_service.bootstrap import SERVICE
from chassis.consuming import offsets
from chassis.consuming.processor import ChunkProcessor
from chassis.correlation import new_id
from chassis.persistence.tables import outbox, parked
from chassis.settings import Role
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of
from contracts.envelope import EncodedEvent, encode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from local_cluster.settings import REPOSITORY
from tests.integration.accounts_service.test_service import settings

# Every command is a process of its own.
pytestmark = pytest.mark.timeout(240)

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
KNOWN, UNKNOWN = b"users.user-signed-up.v1", b"users.user-signed-up.v2"


def utc_now() -> datetime:
    return datetime.now(UTC)


def signed_up(user: UUID, sequence: int) -> EncodedEvent:
    """An event of a user; all but the first are about others, who have no account yet either."""
    return encode(
        UserSignedUpV1(user_id=user if sequence == 1 else new_id(), username="ada"),
        id=new_id(),
        source="/users",
        subject=str(user),
        time=utc_now(),
        sequence=sequence,
        correlationid="c-1",
    )


def of_an_unknown_version(event: EncodedEvent) -> EncodedEvent:
    headers = [(name, value.replace(KNOWN, UNKNOWN)) for name, value in event.headers]
    return EncodedEvent(event.key, event.payload.replace(KNOWN, UNKNOWN), headers)


@dataclass
class Desk:
    """Where an operator sits: a user's first event is parked, as of an unknown version."""

    database: str
    engine: AsyncEngine
    directory: Path
    user: UUID
    id: UUID

    @property
    def environment(self) -> dict[str, str]:
        ours = {
            "ACCOUNTS_DATABASE_URL": self.database,
            "ACCOUNTS_JWKS_URL": "http://127.0.0.1:1/jwks.json",
            "ACCOUNTS_IDEMPOTENCY_SECRET": "s" * 32,
            "PYTHONPATH": str(REPOSITORY),
            "USER": "ada",
            "LOGNAME": "ada",
        }
        return os.environ | ours

    def parked(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "accounts_service", "parked", *map(str, arguments)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def types(self, line: str) -> None:
        """Type a line of the page, with what it says of an event put in."""
        done = subprocess.run(
            ["bash", "-c", line.replace("python", sys.executable, 1)],  # noqa: S607
            cwd=self.directory,
            env=self.environment | {"ID": str(self.id), "SUBJECT": str(self.user)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

    async def accounts(self) -> int:
        async with self.engine.connect() as connection:
            query = select(accounts.c.id).where(accounts.c.user_id == self.user)
            return len((await connection.execute(query)).all())

    async def told(self) -> list[dict[str, Any]]:
        """What the operators' acts tell, in their order."""
        query = select(outbox.c.type, outbox.c.payload).where(outbox.c.type.like("operations.%"))
        async with self.engine.connect() as connection:
            found = (await connection.execute(query.order_by(outbox.c.position))).all()
        return [{"type": each.type} | json.loads(each.payload)["data"] for each in found]


@pytest.fixture
async def desk(accounts_database: str, engine: AsyncEngine, tmp_path: Path) -> Desk:
    user = new_id()
    subscribers = SERVICE.subscribers(settings(accounts_database, Role.API))
    events: Sequence[EncodedEvent] = [of_an_unknown_version(signed_up(user, 1)), signed_up(user, 2)]
    async with engine.begin() as connection:
        await offsets.begin(connection, subscribers, USERS_USER.name, {0: (0, 0)}, utc_now)
    consumer = ChunkProcessor(USERS_USER, subscribers, engine, SERVICE.open_work, utc_now)
    records = [FakeRecord.of(event, USERS_USER.name, n) for n, event in enumerate(events)]
    await consumer.process(chunk_of(records), FakeChunkSource())
    async with engine.connect() as connection:
        query = select(parked.c.id).order_by(parked.c.offset).limit(1)
        (id_,) = await connection.scalars(query)
    return Desk(accounts_database, engine, tmp_path, user, id_)


async def test_the_commands_on_the_page_find_it_mend_it_and_release_it(desk: Desk) -> None:
    (block,) = re.findall(
        r"^```sh\n(python -m accounts_service parked .*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
    for line in block.replace("\\\n", "").splitlines():
        if line.startswith("#"):
            event = desk.directory / "event.json"
            event.write_bytes(event.read_bytes().replace(UNKNOWN, KNOWN))
        else:
            await asyncio.to_thread(desk.types, line)

    assert await desk.accounts() == 1


class TestTheCommands:
    async def test_show_what_is_parked(self, desk: Desk) -> None:
        listed = desk.parked("list", "--subject", desk.user)
        counted = desk.parked("count", "--json")
        shown = desk.parked("show", desk.id)

        assert listed.returncode == 0, listed.stderr
        head, first, second = listed.stdout.splitlines()
        assert head.split()[:2] == ["ID", "SUBSCRIBER"]
        assert (str(desk.id) in first, "not-understood" in first) == (True, True)
        assert "behind-parked" in second
        assert [each["events"] for each in json.loads(counted.stdout)["counts"]] == [1, 1]
        assert re.search(rf"^subject +{desk.user}$", shown.stdout, re.MULTILINE)

    async def test_try_it_and_say_what_would_come_of_it(self, desk: Desk) -> None:
        second = json.loads(desk.parked("list", "--reason", "behind", "--json").stdout)
        (behind,) = second["parked"]

        fails = desk.parked("dry-run", desk.id)
        works = desk.parked("dry-run", behind["id"])

        assert fails.stdout.startswith("stays parked: not-understood\n")
        assert "accounts: 1 inserted, 0 updated, 0 deleted\n" in works.stdout
        assert "publishes accounts.account: {" in works.stdout
        assert await desk.accounts() == 0
        assert await desk.told() == []

    async def test_keep_who_did_it_and_why(self, desk: Desk) -> None:
        applied = desk.parked("release", desk.id, "--why", "try it")
        discarded = desk.parked("discard", desk.id, "--why", "too new", "--by", "bob")

        assert (applied.returncode, discarded.returncode) == (1, 0)
        assert f"stopped at {desk.id}: not-understood" in applied.stdout
        assert [(each["type"], each["by"], each["why"]) for each in await desk.told()] == [
            ("operations.parked-event-parked-again.v1", "ada", "try it"),
            ("operations.parked-event-discarded.v1", "bob", "too new"),
        ]

    async def test_refuse_with_1_and_what_makes_no_sense_with_2(self, desk: Desk) -> None:
        nobody = new_id()
        refused: list[tuple[list[object], int, str]] = [
            (["discard", nobody, "--why", "x"], 1, "no-such-parked-event: "),
            (["release", nobody, "--why", "x"], 1, "no-such-parked-event: "),
            (["discard", desk.id], 2, "--why"),
            (["discard", desk.id, "--why", ""], 2, "--why"),
            (["release", "--subject", desk.user, "--why", "x"], 2, "Name one event"),
            (["list", "--reason", "odd"], 2, "--reason"),
        ]

        for arguments, status, said in refused:
            done = desk.parked(*arguments)
            assert (done.returncode, said in done.stderr) == (status, True), done.stderr

    async def test_say_that_the_database_is_away(self, desk: Desk) -> None:
        desk.database = "postgresql://nobody@127.0.0.1:1/nothing"

        done = desk.parked("list")

        assert (done.returncode, done.stderr.startswith("the database is away")) == (1, True)
