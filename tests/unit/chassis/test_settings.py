import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from chassis.settings import Role, TokenReaderSettings, read_settings


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
