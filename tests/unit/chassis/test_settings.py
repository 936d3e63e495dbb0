from pathlib import Path
from typing import Any

import pytest
from annotated_types import Le
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from chassis.persistence.advisory_lock import LOCK_SESSION_SETTINGS
from chassis.settings import Role, TokenReaderSettings, read_settings, values_of


class ToySettings(TokenReaderSettings):
    model_config = SettingsConfigDict(env_prefix="TOYS_")

    http_port: int = Field(default=8999, ge=0, le=65_535)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with all that a service needs to start."""
    monkeypatch.setenv("TOYS_DATABASE_URL", "postgresql://toys:secret@127.0.0.1/toys")
    monkeypatch.setenv("TOYS_JWKS_URL", "http://127.0.0.1:8001/.well-known/jwks.json")
    monkeypatch.setenv("TOYS_IDEMPOTENCY_SECRET", "a secret of more than 32 characters")
    return monkeypatch


class TestReading:
    def test_a_setting_that_is_not_set_has_its_default_and_all_roles_run(
        self, environment: pytest.MonkeyPatch
    ) -> None:
        settings = read_settings(ToySettings)

        assert settings.http_port == 8999
        assert settings.roles == {Role.API, Role.RELAY, Role.AGENTS}
        assert settings.environment == "production"

    def test_roles_are_comma_separated(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("TOYS_ROLES", "relay, agents")

        settings = read_settings(ToySettings)

        assert settings.roles == {Role.RELAY, Role.AGENTS}
        assert not settings.serves_routes

    def test_an_empty_variable_counts_as_not_set(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("TOYS_OTLP_ENDPOINT", "")

        assert read_settings(ToySettings).otlp_endpoint is None

    def test_settings_cannot_be_changed(self, environment: pytest.MonkeyPatch) -> None:
        settings = read_settings(ToySettings)

        with pytest.raises(ValidationError, match="frozen"):
            settings.http_port = 1  # type: ignore[misc]

    def test_secrets_are_not_in_the_repr(self, environment: pytest.MonkeyPatch) -> None:
        settings = read_settings(ToySettings)

        assert "secret" not in repr(settings).replace("idempotency_secret", "")


class TestWrongSettings:
    def test_each_is_one_line_that_names_its_variable_without_its_value(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment.setenv("TOYS_DATABASE_URL", "mysql://toys:hunter2@127.0.0.1/toys")
        environment.setenv("TOYS_HTTP_PORT", "hunter2")
        environment.setenv("TOYS_IDEMPOTENCY_SECRET", "hunter2")
        environment.setenv("TOYS_ROLES", "api,hunter2")
        environment.delenv("TOYS_JWKS_URL")

        with pytest.raises(SystemExit) as exit_:
            read_settings(ToySettings)

        assert exit_.value.code == 2
        errors = capsys.readouterr().err
        assert "hunter2" not in errors
        assert [line.split(":")[0] for line in sorted(errors.splitlines())] == [
            "TOYS_DATABASE_URL",
            "TOYS_HTTP_PORT",
            "TOYS_IDEMPOTENCY_SECRET",
            "TOYS_JWKS_URL",
            "TOYS_ROLES",
        ]
        assert "TOYS_JWKS_URL: is not set" in errors
        assert "TOYS_DATABASE_URL: must begin with postgresql://" in errors

    def test_a_process_without_a_role_is_refused(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment.setenv("TOYS_ROLES", ",")

        with pytest.raises(SystemExit):
            read_settings(ToySettings)

        assert capsys.readouterr().err.startswith("TOYS_ROLES: ")

    def test_no_relay_runs_beside_a_slot_that_publishes_the_outbox(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment.setenv("TOYS_OUTBOX_SLOT", "outbox_toys")

        with pytest.raises(SystemExit) as exit_:
            read_settings(ToySettings)

        assert exit_.value.code == 2
        assert capsys.readouterr().err == (
            "TOYS_OUTBOX_SLOT: is set, so the roles must not contain relay (such as api,agents)\n"
        )
        environment.setenv("TOYS_ROLES", "api,agents")
        assert read_settings(ToySettings).outbox_slot == "outbox_toys"

    def test_a_secret_has_two_values_at_most_and_none_is_short(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        long = "x" * 32
        for wrong in (f"{long},short", f"{long},{long},{long}", f"{long},"):
            environment.setenv("TOYS_IDEMPOTENCY_SECRET", wrong)

            with pytest.raises(SystemExit):
                read_settings(ToySettings)

        environment.setenv("TOYS_IDEMPOTENCY_SECRET", f"{long}, {'y' * 32}")
        settings = read_settings(ToySettings)
        assert values_of(settings.idempotency_secret) == [b"x" * 32, b"y" * 32]
        assert capsys.readouterr().err.count("TOYS_IDEMPOTENCY_SECRET: must be 32 characters") == 3


class TestASecretInAFile:
    @pytest.mark.parametrize(
        "setting", ["database_url", "idempotency_secret", "kafka_sasl_password"]
    )
    def test_is_read_without_the_end_of_its_line(
        self, environment: pytest.MonkeyPatch, tmp_path: Path, setting: str
    ) -> None:
        variable, file = f"TOYS_{setting.upper()}", tmp_path / "secret"
        secret = f"postgresql://{'s' * 32}@127.0.0.1/toys"
        file.write_text(f"{secret}\n")
        environment.delenv(variable, raising=False)
        environment.setenv(f"{variable}_FILE", str(file))

        settings = read_settings(ToySettings)

        assert getattr(settings, setting).get_secret_value() == secret

    def test_that_is_not_there_or_is_set_twice_is_one_line(
        self,
        environment: pytest.MonkeyPatch,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        environment.setenv("TOYS_IDEMPOTENCY_SECRET_FILE", str(tmp_path / "none"))
        with pytest.raises(SystemExit) as twice:
            read_settings(ToySettings)
        environment.delenv("TOYS_IDEMPOTENCY_SECRET")
        with pytest.raises(SystemExit) as missing:
            read_settings(ToySettings)

        assert (twice.value.code, missing.value.code) == (2, 2)
        assert capsys.readouterr().err.splitlines() == [
            "TOYS_IDEMPOTENCY_SECRET_FILE: is set, and TOYS_IDEMPOTENCY_SECRET too",
            "TOYS_IDEMPOTENCY_SECRET_FILE: No such file or directory",
        ]

    @pytest.mark.parametrize("content", ["", "\n"])
    def test_that_is_empty_is_refused_also_where_the_secret_is_optional(
        self,
        environment: pytest.MonkeyPatch,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        content: str,
    ) -> None:
        (tmp_path / "secret").write_text(content)
        environment.setenv("TOYS_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "secret"))

        with pytest.raises(SystemExit) as exit_:
            read_settings(ToySettings)

        assert exit_.value.code == 2
        assert capsys.readouterr().err == "TOYS_KAFKA_SASL_PASSWORD_FILE: is empty\n"


class TestBounds:
    @pytest.mark.parametrize(
        ("setting", "too_large"), [("relay_idle_s", 6), ("max_body_bytes", 2**31)]
    )
    def test_a_value_that_breaks_what_waits_for_it_is_refused(
        self,
        environment: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        setting: str,
        too_large: float,
    ) -> None:
        environment.setenv(f"TOYS_{setting.upper()}", str(too_large))

        with pytest.raises(SystemExit):
            read_settings(ToySettings)

        assert capsys.readouterr().err.startswith(f"TOYS_{setting.upper()}: Input should be less")

    def test_the_relay_sleeps_less_than_its_session_may_idle(self) -> None:
        bounds: list[Any] = [
            each
            for each in ToySettings.model_fields["relay_idle_s"].metadata
            if isinstance(each, Le)
        ]

        (longest,) = (each.le for each in bounds)
        assert longest < float(LOCK_SESSION_SETTINGS["idle_session_timeout"].rstrip("s"))
