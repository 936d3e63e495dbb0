"""Parked events, repaired with the service's commands while the service does not run."""

import asyncio
import json
import os
import re
import shlex
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

from accounts_service.adapters.tables import accounts
from accounts_service.bootstrap import SERVICE
from chassis.consuming import offsets
from chassis.consuming.processor import ChunkProcessor
from chassis.correlation import new_id
from chassis.persistence.database import Database
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
VALID, INVALID = b'"username":"ada"', b'"user_name":"ada"'


def utc_now() -> datetime:
    return datetime.now(UTC)


def signed_up(user: UUID, sequence: int) -> EncodedEvent:
    """Return an event with the user as its subject; all but the first sign up other users."""
    return encode(
        UserSignedUpV1(user_id=user if sequence == 1 else new_id(), username="ada"),
        id=new_id(),
        source="/users",
        subject=str(user),
        time=utc_now(),
        sequence=sequence,
        correlationid="c-1",
    )


def with_invalid_data(event: EncodedEvent) -> EncodedEvent:
    return EncodedEvent(event.key, event.payload.replace(VALID, INVALID), event.headers)


@dataclass
class Parked:
    """A database in which a user's first event is parked, because its data is invalid."""

    database: str
    engine: Database
    directory: Path
    user: UUID
    id: UUID

    @property
    def environment(self) -> dict[str, str]:
        variables = {
            "ACCOUNTS_DATABASE_URL": self.database,
            "ACCOUNTS_JWKS_URL": "http://127.0.0.1:1/jwks.json",
            "ACCOUNTS_IDEMPOTENCY_SECRET": "s" * 32,
            "PYTHONPATH": str(REPOSITORY),
            "USER": "ada",
            "LOGNAME": "ada",
        }
        return os.environ | variables

    def parked(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "accounts_service", "parked", *map(str, arguments)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def run_line(self, line: str) -> None:
        """Run a line of the page, with the event's ids as variables."""
        done = subprocess.run(
            ["bash", "-c", line.replace("python", shlex.quote(sys.executable), 1)],  # noqa: S607
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

    async def acts(self) -> list[dict[str, Any]]:
        """Return the published acts of operators, in their order."""
        query = select(outbox.c.type, outbox.c.payload).where(outbox.c.type.like("operations.%"))
        async with self.engine.connect() as connection:
            found = (await connection.execute(query.order_by(outbox.c.position))).all()
        return [{"type": each.type} | json.loads(each.payload)["data"] for each in found]


@pytest.fixture
async def service(accounts_database: str, engine: Database, tmp_path: Path) -> Parked:
    user = new_id()
    known = SERVICE.subscribers(settings(accounts_database, Role.API))
    subscribers = [each for each in known if each.name == "accounts.open-account"]
    events: Sequence[EncodedEvent] = [with_invalid_data(signed_up(user, 1)), signed_up(user, 2)]
    async with engine.begin() as connection:
        await offsets.begin(connection, subscribers, USERS_USER.name, {0: (0, 0)}, utc_now)
    processor = ChunkProcessor(USERS_USER, subscribers, engine, SERVICE.open_work, utc_now)
    records = [FakeRecord.of(event, USERS_USER.name, n) for n, event in enumerate(events)]
    await processor.process(chunk_of(records), FakeChunkSource())
    async with engine.connect() as connection:
        query = select(parked.c.id).order_by(parked.c.offset).limit(1)
        (id_,) = await connection.scalars(query)
    return Parked(accounts_database, engine, tmp_path, user, id_)


async def test_the_commands_on_the_page_find_edit_and_release_an_event(service: Parked) -> None:
    (block,) = re.findall(
        r"^```sh\n(python -m accounts_service parked count.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
    for line in block.replace("\\\n", "").splitlines():
        if line.startswith("#"):
            event = service.directory / "event.json"
            event.write_bytes(event.read_bytes().replace(INVALID, VALID))
        else:
            await asyncio.to_thread(service.run_line, line)

    assert await service.accounts() == 1


class TestTheCommands:
    async def test_list_count_and_show_parked_events(self, service: Parked) -> None:
        listed = service.parked("list", "--subject", service.user)
        counted = service.parked("count", "--json")
        shown = service.parked("show", service.id)

        assert listed.returncode == 0, listed.stderr
        head, first, second = listed.stdout.splitlines()
        assert head.split()[:2] == ["ID", "SUBSCRIBER"]
        assert (str(service.id) in first, "not-understood" in first) == (True, True)
        assert "behind-parked" in second
        assert [each["events"] for each in json.loads(counted.stdout)["counts"]] == [1, 1]
        assert re.search(rf"^subject +{service.user}$", shown.stdout, re.MULTILINE)
        assert head.split()[-4:] == ["LAST", "TRIED", "AT", "ERROR", "MESSAGE"][-4:]
        assert f"header subject: {service.user}\n" in shown.stdout
        assert '\n  "specversion": "1.0",\n' in shown.stdout

    async def test_dry_run_an_event_and_print_its_effects(self, service: Parked) -> None:
        second = json.loads(service.parked("list", "--reason", "behind", "--json").stdout)
        (behind,) = second["parked"]

        fails = service.parked("dry-run", service.id)
        works = service.parked("dry-run", behind["id"])

        assert fails.stdout.startswith("stays parked: not-understood\n")
        assert "accounts: 1 inserted, 0 updated, 0 deleted\n" in works.stdout
        assert "publishes accounts.account: {" in works.stdout
        assert await service.accounts() == 0
        assert await service.acts() == []

    async def test_publish_who_did_it_and_why(self, service: Parked) -> None:
        applied = service.parked("release", service.id, "--why", "try it")
        discarded = service.parked("discard", service.id, "--why", "too new", "--by", "bob")

        assert (applied.returncode, discarded.returncode) == (1, 0)
        assert f"stopped at {service.id}: not-understood" in applied.stdout
        assert [(each["type"], each["by"], each["why"]) for each in await service.acts()] == [
            ("operations.parked-event-parked-again.v1", "ada", "try it"),
            ("operations.parked-event-discarded.v1", "bob", "too new"),
        ]

    async def test_preview_and_decide_about_all_of_an_error_and_about_one_record(
        self, service: Parked
    ) -> None:
        which = ("--subscriber", "accounts.open-account", "--topic", USERS_USER.name)
        error, why = ("--error-code", "not-understood"), ("--why", "it never was one")

        previewed = service.parked("preview", *which, *error)
        discarded = service.parked("discard-all", *which, *error, *why)
        released = service.parked("release-record", USERS_USER.name, 0, 1, *why)
        nothing = service.parked("discard-record", USERS_USER.name, 0, 0, *why)

        assert previewed.stdout.splitlines() == [
            "1 aggregates with 2 events",
            "0 of 1 that were tried would be handled",
            "1 would stay: not-understood",
        ]
        assert discarded.stdout == "1 discarded\n"
        assert released.stdout == "1 released: accounts.open-account\n"
        assert nothing.stdout == "discarded: no subscriber here had parked it\n"
        assert json.loads(service.parked("count", "--json").stdout)["counts"] == []

    async def test_exit_with_1_if_refused_and_with_2_if_the_options_are_invalid(
        self, service: Parked
    ) -> None:
        unknown = new_id()
        refused: list[tuple[list[object], int, str]] = [
            (["discard", unknown, "--why", "x"], 1, "no-such-parked-event: "),
            (["release", unknown, "--why", "x"], 1, "no-such-parked-event: "),
            (["discard", service.id], 2, "--why"),
            (["discard", service.id, "--why", ""], 2, "--why"),
            (["release", "--subject", service.user, "--why", "x"], 2, "Name one event"),
            (["list", "--reason", "odd"], 2, "--reason"),
        ]

        for arguments, status, text in refused:
            done = service.parked(*arguments)
            assert (done.returncode, text in done.stderr) == (status, True), done.stderr

    async def test_report_that_the_database_is_unreachable(self, service: Parked) -> None:
        service.database = "postgresql://accounts@127.0.0.1:1/accounts"

        done = service.parked("list")

        assert (done.returncode, done.stderr.startswith("the database is away")) == (1, True)
