import pytest

from accounts_service.settings import AccountsSettings
from chassis.settings import read_settings


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCOUNTS_DATABASE_URL", "postgresql://accounts@127.0.0.1/accounts")
    monkeypatch.setenv("ACCOUNTS_JWKS_URL", "http://127.0.0.1:28101/.well-known/jwks.json")
    monkeypatch.setenv("ACCOUNTS_IDEMPOTENCY_SECRET", "s" * 32)


class TestCurrency:
    def test_the_default_is_dollars(self) -> None:
        assert read_settings(AccountsSettings).currency == "USD"

    def test_it_can_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACCOUNTS_CURRENCY", "EUR")

        assert read_settings(AccountsSettings).currency == "EUR"

    @pytest.mark.parametrize("code", ["usd", "US", "DOLLAR", "U$D"])
    def test_an_invalid_code_is_refused_with_the_name_of_the_setting(
        self, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("ACCOUNTS_CURRENCY", code)

        with pytest.raises(SystemExit):
            read_settings(AccountsSettings)

        assert capsys.readouterr().err.startswith("ACCOUNTS_CURRENCY:")
