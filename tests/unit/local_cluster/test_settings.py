"""Directories that can be used on any machine, and ports that a clone keeps."""

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from chassis.settings import KafkaSettings, misspelt
from local_cluster.misspelt import misspelt_settings
from local_cluster.settings import PROJECT, REPOSITORY, Settings, _default_cache


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LOCAL_"):
            monkeypatch.delenv(name)


class TestTheCache:
    @pytest.fixture(autouse=True)
    def not_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def test_is_below_the_users_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))

        assert _default_cache() == tmp_path / ".cache" / PROJECT

    def test_of_a_user_without_a_home_is_in_the_repository(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", no_home)

        assert _default_cache() == REPOSITORY / ".cache"

    def test_of_a_user_who_may_not_write_there_is_in_the_repository(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(os, "access", lambda *_: False)

        assert _default_cache() == REPOSITORY / ".cache"


class TestAPath:
    @pytest.mark.parametrize("name", ["köpie ö,x", "back\\slash", 'it\'s "quoted" $HOME 50%'])
    def test_may_have_any_name(self, tmp_path: Path, name: str) -> None:
        assert Settings(directory=tmp_path / name).directory == tmp_path / name

    @pytest.mark.parametrize("name", ["a:b", "two\nlines", os.fsdecode(b"\xff")])
    def test_that_java_or_kafka_can_not_have_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValidationError, match="can't be used"):
            Settings(directory=tmp_path / name)


class TestPorts:
    def of(self, directory: Path, *, starting: bool, **given: int) -> Settings:
        return Settings.model_validate({"directory": directory} | given).with_remembered_ports(
            starting=starting
        )

    def up(self, directory: Path, **given: int) -> None:
        self.of(directory, starting=True, **given).remember_ports()

    def test_are_the_usual_ones_at_first(self, tmp_path: Path) -> None:
        assert self.of(tmp_path, starting=True).kafka_port == 9092
        assert self.of(tmp_path, starting=False).kafka_port == 9092

    def test_all_move_by_one_setting(self, tmp_path: Path) -> None:
        moved = self.of(tmp_path, starting=True, port_offset=100)

        for name in Settings.ports():
            assert getattr(moved, name) == Settings.model_fields[name].default + 100

    def test_with_which_a_cluster_was_started_are_those_of_each_later_command(
        self, tmp_path: Path
    ) -> None:
        self.up(tmp_path, port_offset=100, kafka_port=9999)

        for starting in (True, False):
            found = self.of(tmp_path, starting=starting)
            assert (found.kafka_port, found.postgres_port) == (9999, 25532)

    def test_a_command_finds_its_cluster_although_a_port_is_set_otherwise(
        self, tmp_path: Path
    ) -> None:
        self.up(tmp_path, port_offset=100)

        assert self.of(tmp_path, starting=False, kafka_port=9092).kafka_port == 9192
        assert self.of(tmp_path, starting=False, port_offset=0).kafka_port == 9192

    def test_the_next_start_may_move_them_again(self, tmp_path: Path) -> None:
        self.up(tmp_path, port_offset=100)

        assert self.of(tmp_path, starting=True, kafka_port=9999).kafka_port == 9999
        assert self.of(tmp_path, starting=True, port_offset=0).kafka_port == 9092

    def test_half_of_a_file_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "ports.json").write_text(json.dumps({"kafka_port": 9999})[:-3])

        assert self.of(tmp_path, starting=False).kafka_port == 9092


class TestAMisspeltSetting:
    @pytest.mark.parametrize(
        ("variable", "nearest"),
        [
            ("LOCAL_KAFKA_PROT", "LOCAL_KAFKA_PORT"),
            ("USERS_LOG_LEVL", "USERS_LOG_LEVEL"),
            ("ACCOUNTS_DATABASE_POOLSIZE", "ACCOUNTS_DATABASE_POOL_SIZE"),
        ],
    )
    def test_is_named_with_the_nearest_one(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str
    ) -> None:
        monkeypatch.setenv(variable, "1")

        assert list(misspelt_settings()) == [f"{variable} is no setting; the nearest is {nearest}"]

    def test_of_a_command_without_a_prefix_is_none_that_a_service_has(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACCOUNTS_KAFKA_SASL_USERNAME", "accounts")
        monkeypatch.setenv("KAFKA_SASL_USERNAM", "accounts")

        assert list(misspelt(KafkaSettings)) == [
            "KAFKA_SASL_USERNAM is no setting; the nearest is KAFKA_SASL_USERNAME"
        ]

    @pytest.mark.parametrize(
        "variable",
        [
            "USERS_LOG_LEVEL",
            "USERS_DATABASE_URL_FILE",
            "USERS_SERVICE_HOST",
            "USERS_SERVICE_PORT_HTTP",
            "USERS_PORT_28101_TCP_ADDR",
            "GATEWAY_PORT",
            "AUDIT_TEAM",
        ],
    )
    def test_another_variable_is_none(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        monkeypatch.setenv(variable, "1")

        assert list(misspelt_settings()) == []
