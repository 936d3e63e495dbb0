import pytest
from pydantic import SecretStr, ValidationError

from chassis.settings import BAD_SETTINGS_EXIT_CODE, exit_if_in_the_clear, read_settings
from notification_service.settings import NotificationSettings

ENVIRONMENT = {
    "NOTIFICATION_DATABASE_URL": "postgresql://notification@127.0.0.1:1/notification",
    "NOTIFICATION_JWKS_URL": "http://127.0.0.1:1/jwks.json",
    "NOTIFICATION_IDEMPOTENCY_SECRET": "s" * 32,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


class TestSlack:
    def test_in_production_a_token_is_needed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            read_settings(NotificationSettings)

        assert stopped.value.code == BAD_SETTINGS_EXIT_CODE
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("NOTIFICATION_SLACK_TOKEN: ")

    def test_in_production_an_address_without_a_token_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTIFICATION_SLACK_BASE_URL", "http://127.0.0.1:28105/api/")

        with pytest.raises(SystemExit):
            read_settings(NotificationSettings)

    def test_a_token_without_an_address_is_for_slack(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOTIFICATION_SLACK_TOKEN", "xoxb-secret")

        settings = read_settings(NotificationSettings)

        assert settings.slack == ("xoxb-secret", "https://slack.com/api/")
        assert "xoxb-secret" not in repr(settings)

    def test_in_production_its_address_is_no_http(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("NOTIFICATION_SLACK_TOKEN", "xoxb-secret")
        monkeypatch.setenv("NOTIFICATION_SLACK_BASE_URL", "http://slack.internal/api/")

        with pytest.raises(SystemExit):
            exit_if_in_the_clear(read_settings(NotificationSettings))

        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("NOTIFICATION_SLACK_BASE_URL: must begin with https://")

    def test_in_development_the_stand_in_is_the_default(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTIFICATION_ENVIRONMENT", "development")

        assert read_settings(NotificationSettings).slack == (
            "xoxb-stand-in",
            "http://127.0.0.1:28105/api/",
        )

    def test_a_set_address_is_used_with_and_without_a_token(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTIFICATION_ENVIRONMENT", "development")
        monkeypatch.setenv("NOTIFICATION_SLACK_BASE_URL", "http://127.0.0.1:1/api/")
        without = read_settings(NotificationSettings)
        monkeypatch.setenv("NOTIFICATION_SLACK_TOKEN", "xoxb-secret")
        with_one = read_settings(NotificationSettings)

        assert without.slack == ("xoxb-stand-in", "http://127.0.0.1:1/api/")
        assert with_one.slack == ("xoxb-secret", "http://127.0.0.1:1/api/")


class TestTimeouts:
    def test_a_lease_must_be_longer_than_a_call(self) -> None:
        with pytest.raises(ValidationError, match="greater than the time-out"):
            NotificationSettings(
                slack_token=SecretStr("xoxb-1"), delivery_timeout_s=10, delivery_lease_s=10
            )
