"""``services.toml`` is read strictly, and each service gets a field in the settings of others."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services import SERVICES, DeclaredService, WrongDeclaration, read, service_named
from services.settings import one_for_each

LOYALTY = """
[loyalty-points]
module = "loyalty_service.worker"
title = "points"
port = 28106
routes = ["GET /points/{user_id}"]
"""


def declared(tmp_path: Path, text: str) -> DeclaredService:
    (tmp_path / "services.toml").write_text(text)
    (service,) = read(tmp_path / "services.toml")
    return service


class TestADeclaration:
    def test_names_follow_from_the_name_and_the_module(self, tmp_path: Path) -> None:
        service = declared(tmp_path, LOYALTY)

        assert service.package == "loyalty_service"
        assert service.prefix == "LOYALTY_POINTS_"
        assert service.identifier == "loyalty_points"
        assert service.operations == [("GET", "/points/{user_id}")]
        assert (service.database, service.forwards, service.unless_set) == (False, False, None)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (LOYALTY + "ports = 1\n", r"loyalty-points\.ports: no such key; there are module, "),
            (LOYALTY + "database = 1\n", r"loyalty-points\.database: must be of type bool"),
            (LOYALTY.replace("port = 28106\n", ""), r"loyalty-points: lacks port"),
        ],
    )
    def test_a_mistake_is_named(self, tmp_path: Path, changed: str, message: str) -> None:
        with pytest.raises(WrongDeclaration, match=message):
            declared(tmp_path, changed)

    def test_a_service_is_found_by_its_name(self) -> None:
        assert all(service_named(each.name) is each for each in SERVICES)


class TestAFieldForEachService:
    def test_is_read_from_the_environment_and_checked_like_any_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = declared(tmp_path, LOYALTY)

        @one_for_each([service], "_port", int, lambda each: {"default": each.port, "gt": 0})
        class Settings(BaseSettings):
            """The settings of this test."""

            model_config = SettingsConfigDict(env_prefix="TEST_")

            own: int = 1

        assert Settings().model_dump() == {"own": 1, "loyalty_points_port": 28106}
        assert (Settings.__name__, Settings.__doc__) == ("Settings", "The settings of this test.")
        monkeypatch.setenv("TEST_LOYALTY_POINTS_PORT", "0")
        with pytest.raises(ValidationError, match="loyalty_points_port"):
            Settings()
