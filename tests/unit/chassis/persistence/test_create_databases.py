"""``python -m chassis.persistence create-databases`` refuses what is not set, in one line."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from chassis.persistence.__main__ import main
from services import WITH_DATABASE

URLS = {
    "ADMINISTRATOR_DATABASE_URL": "postgresql://postgres:secret@127.0.0.1:1/postgres",
    **{
        f"{each.prefix}DATABASE_URL": f"postgresql://{each.name}:secret@127.0.0.1:1/{each.name}"
        for each in WITH_DATABASE
    },
}


def refused(environment: dict[str, str]) -> str:
    result = CliRunner().invoke(main, ["create-databases"], env=environment)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


@pytest.mark.parametrize("name", URLS)
def test_a_url_that_is_not_set_is_named(name: str) -> None:
    assert refused(URLS | {name: ""}) == f"not set: {name}\n"


def test_a_file_that_is_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "url").touch()
    name = "ADMINISTRATOR_DATABASE_URL"
    environment = URLS | {name: "", f"{name}_FILE": str(tmp_path / "url")}

    assert refused(environment) == f"{name}_FILE: is empty\n"


def test_a_url_without_a_password_is_refused_and_not_printed() -> None:
    environment = URLS | {"USERS_DATABASE_URL": "postgresql://users@127.0.0.1:1/users"}

    assert refused(environment) == "a database's URL must name a login and its password\n"


def test_a_server_that_does_not_answer_is_one_line() -> None:
    result = CliRunner().invoke(main, ["create-databases"], env=URLS)

    assert (result.exit_code, result.stderr) == (1, "PostgreSQL: ConnectionRefusedError\n")
