"""The operators' commands of a service, run as processes."""

import getpass
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from click.testing import CliRunner

from accounts_service.__main__ import cli
from chassis.correlation import new_id
from contracts.accounts import AccountOpenedV1
from contracts.envelope import decode, encode
from contracts.topics import USERS_USER
from local_cluster.settings import REPOSITORY
from tests.integration.chassis.path import create_topic, publish, rows, signed_up, utc_now

# Every command is a process of its own.
pytestmark = [pytest.mark.usefixtures("_settings"), pytest.mark.timeout(240)]

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()


@pytest.fixture
def _settings(accounts_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": accounts_database,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "JWKS_URL": "http://127.0.0.1:1/jwks.json",
        "IDEMPOTENCY_SECRET": "s" * 32,
        "ENVIRONMENT": "development",
    }.items():
        monkeypatch.setenv(f"ACCOUNTS_{name}", value)


def accounts(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "accounts_service", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )


def run_block(
    block: str, directory: Path, *, without: str | None = None, **variables: object
) -> None:
    """Run a block of commands from docs/operations.md; at its comment, edit the event.

    :param without: the name of a command that is left out
    """
    [lines] = re.findall(
        rf"^```sh\n(python -m accounts_service {block}.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
    for line in lines.replace("\\\n", "").splitlines():
        if without is not None and f" {without} " in line:
            continue
        if line.startswith("#"):
            event = directory / "event.json"
            event.write_text(event.read_text().replace("USD", "EUR"))
            continue
        done = subprocess.run(
            ["bash", "-c", line.replace("python", shlex.quote(sys.executable), 1)],  # noqa: S607
            cwd=directory,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY)}
            | {name: str(value) for name, value in variables.items()},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


async def refuse_one(database: str) -> UUID:
    """Write an event to the outbox as one that Kafka refused."""
    id_, account = new_id(), uuid4()
    encoded = encode(
        AccountOpenedV1(account_id=account, user_id=uuid4(), currency="USD"),
        id=id_,
        source="/accounts",
        subject=str(account),
        time=utc_now(),
        sequence=1,
        correlationid="c-1",
    )
    headers = {name: value.decode() for name, value in encoded.headers}
    [position] = await rows(
        database, "SELECT nextval(pg_get_serial_sequence('outbox', 'position'))"
    )
    columns: dict[str, Any] = {
        "position": position[0],
        "id": id_,
        "aggregatetype": "accounts.account",
        "aggregateid": str(account),
        "type": AccountOpenedV1.event_type,
        "sequence": 1,
        "payload": encoded.payload,
        "headers": json.dumps(headers),
        "created_at": utc_now(),
        "error_code": "MessageSizeTooLargeError",
        "error_message": "too large",
        "set_aside_at": utc_now(),
    }
    names, numbers = ", ".join(columns), ", ".join(f"${n + 1}" for n in range(len(columns)))
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            f"INSERT INTO outbox_set_aside ({names}) VALUES ({numbers})",  # noqa: S608
            *columns.values(),
        )
    finally:
        await connection.close()
    return id_


async def test_the_commands_on_the_page_edit_a_row_that_kafka_refused(
    accounts_database: str, tmp_path: Path
) -> None:
    id_ = await refuse_one(accounts_database)

    run_block("outbox", tmp_path, ID=id_)

    [edited, *_] = await rows(accounts_database, "SELECT payload FROM outbox ORDER BY position")
    assert decode(edited["payload"]).data["currency"] == "EUR"


async def test_the_commands_on_the_page_pause_and_resume_a_subscriber(
    accounts_database: str, tmp_path: Path
) -> None:
    await rows(
        accounts_database,
        "INSERT INTO progress (subscriber, topic, topic_id, partition, next_offset, updated_at)"
        " VALUES ('accounts.open-account', 'users.user', $1, 0, 0, now())",
        UUID(int=0),
    )

    run_block("progress show", tmp_path)

    published = await rows(accounts_database, "SELECT type FROM outbox ORDER BY position")
    assert [each["type"] for each in published] == [
        "operations.subscriber-paused.v1",
        "operations.subscriber-resumed.v1",
    ]


async def test_the_commands_on_the_page_release_a_timer(
    accounts_database: str, tmp_path: Path
) -> None:
    id_ = new_id()
    await rows(
        accounts_database,
        "WITH parked AS (INSERT INTO timers (id, subject, kind, data, due_at, correlation_id)"
        " VALUES ($1, $1, 'x', '{}', now(), 'c-1') RETURNING *)"
        " INSERT INTO next_timers (subject, timer_id, claims, begun, tries, failures,"
        " first_tried_at, last_tried_at, error_code, error_message, parked_at)"
        " SELECT id, id, 5, false, 5, 5, now(), now(), 'x', 'x', now() FROM parked",
        id_,
    )

    run_block("timers list", tmp_path, ID=id_, KIND="x", CODE="y")

    [published] = await rows(accounts_database, "SELECT type FROM outbox")
    assert published["type"] == "operations.timer-released.v1"
    [released] = await rows(accounts_database, "SELECT parked_at, tries FROM next_timers")
    assert tuple(released) == (None, 0)


async def test_the_commands_on_the_page_decide_about_what_one_error_stopped(
    tmp_path: Path,
) -> None:
    run_block("parked preview", tmp_path, CODE="no-such-user")


async def test_the_commands_on_the_page_have_a_stopped_consumer_continue(
    accounts_database: str, kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCOUNTS_KAFKA_BOOTSTRAP", kafka)
    await create_topic(kafka, USERS_USER)
    await publish(kafka, USERS_USER, [signed_up(uuid4(), 1)], 0)
    await rows(
        accounts_database,
        "INSERT INTO progress (subscriber, topic, topic_id, partition, next_offset, updated_at,"
        " held_because, held_at)"
        " VALUES ('accounts.open-account', 'users.user', $1, 0, 0, now(), 'a test', now())",
        UUID(int=1),
    )

    with pytest.raises(AssertionError, match="batch-is-readable"):
        run_block("progress park-all", tmp_path, OFFSET=0)
    run_block("progress park-all", tmp_path, without="skip-batch")

    published = await rows(accounts_database, "SELECT type FROM outbox ORDER BY position")
    assert [each["type"] for each in published] == [
        "operations.parking-allowed.v1",
        "operations.parking-allowed.v1",
        "operations.hold-ended.v1",
    ]


class TestTheOutbox:
    async def test_is_listed_as_a_table_and_as_json(self, accounts_database: str) -> None:
        id_ = await refuse_one(accounts_database)

        as_table = accounts("outbox", "list")
        as_json = accounts("outbox", "list", "--json")

        assert as_table.returncode == 0
        summary, head, line = as_table.stdout.splitlines()
        assert summary == "0 wait"
        assert head.split()[:3] == ["ID", "TOPIC", "SUBJECT"]
        assert line.split()[:2] == [str(id_), "accounts.account"]
        assert [each["id"] for each in json.loads(as_json.stdout)["set_aside"]] == [str(id_)]

    async def test_a_row_is_edited_and_released(
        self, accounts_database: str, tmp_path: Path
    ) -> None:
        id_ = await refuse_one(accounts_database)
        payload = json.loads(accounts("outbox", "show", id_, "--json").stdout)["payload"]
        payload["data"]["currency"] = "EUR"
        (tmp_path / "event.json").write_text(json.dumps(payload))

        file = tmp_path / "event.json"
        edited = accounts("outbox", "edit", id_, "--payload-file", file, "--why", "wrong currency")
        released = accounts("outbox", "release", id_, "--why", "edited", "--by", "ada")

        assert (edited.stdout, released.stdout) == ("edited\n", "released\n")
        first, *acts = await rows(accounts_database, "SELECT payload FROM outbox ORDER BY position")
        assert decode(first["payload"]).data["currency"] == "EUR"
        data = [decode(act["payload"]).data for act in acts]
        assert [(act["by"], act["why"]) for act in data] == [
            (getpass.getuser(), "wrong currency"),
            ("ada", "edited"),
        ]

    async def test_a_row_is_discarded_once(self, accounts_database: str) -> None:
        id_ = await refuse_one(accounts_database)

        done = accounts("outbox", "discard", id_, "--why", "not wanted")
        again = accounts("outbox", "discard", id_, "--why", "not wanted")

        assert (done.returncode, done.stdout) == (0, "discarded\n")
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr.startswith("not-set-aside: ")


class TestTheSequences:
    def test_of_another_services_topic_are_refused(self) -> None:
        done = accounts("sequences", "users.user")

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("not-our-topic: ")


class TestACommand:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("outbox", "release", UUID(int=1)),
            ("outbox", "release", UUID(int=1), "--why", ""),
            ("outbox", "release", UUID(int=1), "--why", "a\nb"),
            ("outbox", "release", UUID(int=1), "--why", "x", "--by", "b" * 256),
            ("outbox", "show", "1"),
            ("outbox", "list", "--subject", "s" * 256),
            ("sequences", "t" * 256),
        ],
    )
    def test_with_invalid_options_is_refused(self, arguments: tuple[object, ...]) -> None:
        done = CliRunner().invoke(cli, [str(each) for each in arguments])

        assert (done.exit_code, done.stdout) == (2, "")

    def test_reports_that_the_database_is_unreachable(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACCOUNTS_DATABASE_URL", "postgresql://accounts@127.0.0.1:1/accounts")

        done = accounts("outbox", "list")

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith("the database is away: ")
