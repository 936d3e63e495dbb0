"""The settings that connect the processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_cluster import ports
from local_cluster.environment import inherited
from local_cluster.errors import ClusterError
from local_cluster.ports import free_port, is_free
from local_cluster.postgres import Postgres
from local_cluster.processes import ProcessSpec
from local_cluster.settings import (
    REPOSITORY,
    WITH_OPERATORS_LISTENER,
    Settings,
    operators_port_setting,
)
from local_cluster.topology import PORT_SETTINGS, Topology
from services import FORWARDED, SERVICES, WITH_DATABASE
from tests.declared import declared


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(directory=tmp_path, cache_directory=tmp_path)


def topology(settings: Settings) -> Topology:
    postgres = Postgres(settings.directory, settings.postgres_port, settings.cache_directory, {})
    return Topology(settings, postgres)


def specs(settings: Settings) -> dict[str, ProcessSpec]:
    wired = topology(settings)
    return {service.name: wired.spec(service) for service in wired.services}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LOCAL_"):
            monkeypatch.delenv(name)


class TestWiring:
    def test_each_service_knows_its_own_database_only(self, settings: Settings) -> None:
        for name, spec in specs(settings).items():
            urls = [value for value in spec.environment.values() if "postgresql://" in value]
            own = name in {service.name for service in WITH_DATABASE}
            assert [url.rsplit("/", 1)[1] for url in urls] == ([name] if own else [])

    def test_every_service_verifies_tokens_by_the_keys_of_users(self, settings: Settings) -> None:
        keys = "http://127.0.0.1:28101/.well-known/jwks.json"

        assert specs(settings)["audit"].environment["AUDIT_JWKS_URL"] == keys

    def test_the_verification_gets_every_address_of_the_cluster_and_nothing_else(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VERIFY_KAFKA_SECURITY_PROTOCOL", "SSL")

        environment = topology(settings).verification_environment()

        found = {name for name in environment if name.startswith("VERIFY_")}
        assert found == {
            *(f"VERIFY_{each.prefix}DATABASE_URL" for each in WITH_DATABASE),
            "VERIFY_KAFKA_BOOTSTRAP",
            *(["VERIFY_SLACK_STAND_IN_URL"] if declared("slack-stand-in") else []),
        }

    def test_the_gateway_knows_where_each_service_listens(self, settings: Settings) -> None:
        wired = topology(settings)
        environment = specs(settings)["gateway"].environment

        urls = {name: value for name, value in environment.items() if name.endswith("_URL")}
        assert urls == {f"GATEWAY_{each.prefix}URL": wired.url(each.name) for each in FORWARDED}

    def test_the_gateway_and_users_share_a_secret(self, settings: Settings) -> None:
        wired = specs(settings)

        assert (
            wired["gateway"].environment["GATEWAY_FORWARD_SECRET"]
            == wired["users"].environment["USERS_GATEWAY_SECRET"]
        )

    def test_the_same_cluster_is_wired_the_same_each_time(self, settings: Settings) -> None:
        assert specs(settings) == specs(settings)


class TestSettingsOfTheCaller:
    def test_a_service_gets_what_is_set_for_it_and_no_other(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("USERS_LOG_LEVEL", "DEBUG")

        wired = specs(settings)

        assert wired["users"].environment["USERS_LOG_LEVEL"] == "DEBUG"
        assert "USERS_LOG_LEVEL" not in wired["audit"].environment
        assert "USERS_LOG_LEVEL" not in inherited(settings.directory)

    def test_the_settings_of_the_cluster_override_it(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("USERS_DATABASE_URL", "postgresql://production/users")

        assert "127.0.0.1" in specs(settings)["users"].environment["USERS_DATABASE_URL"]

    def test_the_file_of_a_secret_that_the_cluster_sets_is_not_passed_on(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("USERS_DATABASE_URL_FILE", "/run/secrets/users")

        assert "USERS_DATABASE_URL_FILE" not in specs(settings)["users"].environment


class TestPorts:
    def test_every_port_of_a_process_is_a_setting(self) -> None:
        fields = {field for fields in PORT_SETTINGS.values() for field in fields}

        assert fields == {name for name in Settings.model_fields if name.endswith("_port")}
        assert {service.name for service in SERVICES} < PORT_SETTINGS.keys()
        for service in WITH_OPERATORS_LISTENER:
            default = Settings.model_fields[operators_port_setting(service)].default
            assert default == service.operators_port

    def test_a_free_port_is_free_and_given_once(self) -> None:
        given = [free_port() for _ in range(50)]

        assert len(set(given)) == 50
        assert all(map(is_free, given))

    def test_a_port_that_was_given_to_another_process_is_free_when_that_ends(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = (
            "from local_cluster.ports import free_port; print(free_port(), flush=True); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        ) as other:
            assert other.stdout
            port = int(other.stdout.readline())
            monkeypatch.setattr(ports, "_LOWEST", port)
            monkeypatch.setattr(ports, "_HIGHEST", port + 1)

            with pytest.raises(ClusterError, match="no free port"):
                free_port()
            other.communicate("\n")

        assert free_port() == port
