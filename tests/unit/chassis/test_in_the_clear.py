"""Production does not start where something would cross a network unprotected."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chassis.in_the_clear import around_servers
from chassis.persistence.connecting import servers_of
from chassis.settings import TokenReaderSettings, exit_if_in_the_clear
from gateway.settings import GatewaySettings
from services import FORWARDED

VERIFIED = "?sslmode=verify-full"


def protected(**changes: Any) -> dict[str, Any]:
    """Return settings with which nothing crosses a network in the clear."""
    return {
        "http_port": 0,
        "database_url": SecretStr(f"postgresql://ada:secret@db.internal/accounts{VERIFIED}"),
        "kafka_bootstrap": "kafka-1.internal:9093,kafka-2.internal:9093",
        "kafka_security_protocol": "SASL_SSL",
        "jwks_url": "https://users.internal/.well-known/jwks.json",
        "idempotency_secret": SecretStr("x" * 32),
        **changes,
    }


def refused(settings: Any, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines with which it exits, none where it starts."""
    with suppress(SystemExit):
        exit_if_in_the_clear(settings)
    return capsys.readouterr().err.splitlines()


class TestAService:
    def test_starts_where_everything_is_protected(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(TokenReaderSettings(**protected()), capsys) == []

    @pytest.mark.parametrize(
        ("setting", "value", "said"),
        [
            ("database_url", SecretStr("postgresql://ada:secret@db.internal/a"), "verify-full"),
            (
                "database_url",
                SecretStr("postgresql://ada:secret@db-1,db-2/a?sslmode=require"),
                "verify-full",
            ),
            (
                "database_url",
                SecretStr("postgresql://ada:secret@127.0.0.1,db-2/a"),
                "verify-full",
            ),
            (
                "database_url",
                SecretStr("postgresql://ada:secret@/a?host=db.internal"),
                "verify-full",
            ),
            ("kafka_security_protocol", "PLAINTEXT", "SASL_SSL"),
            ("kafka_security_protocol", "SASL_PLAINTEXT", "SASL_SSL"),
            ("jwks_url", "http://users.internal/keys", "https://"),
            ("otlp_endpoint", "http://traces.internal:4318", "https://"),
            ("http_host", "0.0.0.0", "HTTP is served on 0.0.0.0"),  # noqa: S104
        ],
    )
    def test_names_what_is_not(
        self, setting: str, value: Any, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = TokenReaderSettings(**protected(**{setting: value}))

        [line] = refused(settings, capsys)

        named = "http_certificate_file" if setting == "http_host" else setting
        assert line.startswith(f"{named.upper()}: ")
        assert said in line
        assert "NETWORK_IS_TRUSTED=true" in line
        assert "secret" not in line

    def test_names_a_database_that_the_environment_leads_elsewhere(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = TokenReaderSettings(**protected(database_url=SecretStr("postgresql:///a")))
        assert refused(settings, capsys) == []

        monkeypatch.setenv("PGHOST", "db.internal")

        [line] = refused(settings, capsys)
        assert line.startswith("DATABASE_URL: ")

    def test_needs_a_certificate_for_kafka_where_only_that_would_authenticate(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        settings = TokenReaderSettings(**protected(kafka_security_protocol="SSL"))
        [line] = refused(settings, capsys)
        assert line.startswith("KAFKA_CERTIFICATE_FILE: ")

        certificate = tmp_path / "certificate.pem"
        certificate.touch()
        with_one = protected(kafka_security_protocol="SSL", kafka_certificate_file=certificate)
        assert refused(TokenReaderSettings(**with_one), capsys) == []

    def test_may_use_what_stays_on_its_machine(self, capsys: pytest.CaptureFixture[str]) -> None:
        local = protected(
            database_url=SecretStr("postgresql://ada:secret@127.0.0.1:5432,[::1]:5433/accounts"),
            kafka_bootstrap="localhost:9092",
            kafka_security_protocol="PLAINTEXT",
            jwks_url="http://127.0.0.1:28101/keys",
            http_host="::1",
        )

        assert refused(TokenReaderSettings(**local), capsys) == []

    @pytest.mark.parametrize(
        "allowing", [{"environment": "development"}, {"network_is_trusted": True}]
    )
    def test_starts_where_that_is_allowed(
        self, allowing: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = TokenReaderSettings(**protected(jwks_url="http://users.internal/", **allowing))

        assert refused(settings, capsys) == []


class TestTheServersOfAUrl:
    """Found by no function of Python's, since its versions differ in what they refuse."""

    @pytest.mark.parametrize(
        ("url", "servers"),
        [
            ("postgresql://ada:s@1@db:5432/accounts?sslmode=verify-full", ["db:5432"]),
            ("postgresql://ada@127.0.0.1:5432,[::1]:5433/a?x=@,", ["127.0.0.1:5432", "[::1]:5433"]),
            ("postgresql:///accounts?host=/run", [""]),
        ],
    )
    def test_each_has_a_url_of_its_own(self, url: str, servers: list[str]) -> None:
        before, found, after = around_servers(url)

        assert found.split(",") == servers
        assert servers_of(url) == [f"{before}{each}{after}" for each in servers]
        assert before + found + after == url


class TestTheGateway:
    def test_names_the_services_that_it_would_ask_in_the_clear(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        urls = {f"{each.identifier}_url": "http://services.internal" for each in FORWARDED}
        settings = GatewaySettings(
            forward_secret=SecretStr("x" * 32),
            operators_host="10.1.2.3",
            **urls,  # type: ignore[arg-type]
        )

        lines = refused(settings, capsys)

        assert {line.partition(":")[0] for line in lines} == {
            "GATEWAY_HTTP_CERTIFICATE_FILE",
            *(f"GATEWAY_{name.upper()}" for name in urls),
        }
