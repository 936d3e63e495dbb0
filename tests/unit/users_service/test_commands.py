from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from users_service.__main__ import cli

SETTINGS = {
    "USERS_DATABASE_URL": "postgresql://users@127.0.0.1:1/users",
    "USERS_IDEMPOTENCY_SECRET": "s" * 32,
    "USERS_GATEWAY_SECRET": "g" * 32,
    "USERS_SIGN_IN_SECRET": "i" * 32,
}


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("battery staple\n")
    return file


def invoke(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=SETTINGS | {"USERS_KEYS_DIR": str(tmp_path)})


def create_operator(password_file: Path, username: str = "root", email: str = "r@local") -> Result:
    return invoke(
        password_file.parent,
        "create-operator",
        f"--username={username}",
        f"--email={email}",
        f"--password-file={password_file}",
    )


class TestCreateOperator:
    @pytest.mark.parametrize(("username", "email"), [("r", "r@local"), ("root", "nowhere")])
    def test_an_invalid_name_or_address_is_reported_in_one_line(
        self, password_file: Path, username: str, email: str
    ) -> None:
        result = create_operator(password_file, username, email)

        assert (result.exit_code, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize("content", [b"short\n", b"\xff" * 8])
    def test_an_invalid_password_is_not_printed(self, password_file: Path, content: bytes) -> None:
        password_file.write_bytes(content)

        result = create_operator(password_file)

        assert (result.exit_code, result.stdout) == (2, "")
        assert str(password_file) in result.stderr
        assert "short\n" not in result.stderr
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize("content", ["password1\n", "operator-1\n", "r@local.example\n"])
    def test_a_password_that_is_guessed_first_is_refused(
        self, password_file: Path, content: str
    ) -> None:
        password_file.write_text(content)

        result = create_operator(password_file, "operator-1", "r@local.example")

        assert (result.exit_code, result.stdout) == (2, "")
        assert "none of" in result.stderr or "neither" in result.stderr
        assert content not in result.stderr.replace(str(password_file), "")

    def test_a_missing_password_file_is_named(self, password_file: Path) -> None:
        password_file.unlink()

        result = create_operator(password_file)

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"{password_file}: FileNotFoundError\n"


class TestRotateKeys:
    def test_each_call_makes_a_new_key(self, tmp_path: Path) -> None:
        printed = [invoke(tmp_path, "rotate-keys").stdout for _ in range(2)]

        assert {f"{line.split()[0]}.json" for line in printed} == {
            f.name for f in tmp_path.iterdir()
        }
        assert len(set(printed)) == 2

    def test_if_there_is_none_makes_the_first_only(self, tmp_path: Path) -> None:
        first, second = (invoke(tmp_path, "rotate-keys", "--if-none") for _ in range(2))

        assert (first.exit_code, second.exit_code) == (0, 0)
        assert [each.name for each in tmp_path.iterdir()] == [f"{first.stdout.split()[0]}.json"]
        assert second.stdout == "there is a key already, and none was made\n"
