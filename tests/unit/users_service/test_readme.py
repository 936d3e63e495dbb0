import re
from pathlib import Path

import users_service
from chassis.settings import ServiceSettings, variable_of
from users_service.settings import UsersSettings

README = Path(users_service.__file__).with_name("README.md")


class TestSettingsTable:
    def test_it_names_every_setting_of_this_service_with_its_default(self) -> None:
        table = {
            name: default
            for row in re.findall(r"^\| (`USERS_.*?) \|(.*?)\|", README.read_text(), re.MULTILINE)
            for name, default in zip(
                re.findall(r"`(\w+)`", row[0]), re.split(r", ", row[1].strip()), strict=True
            )
        }
        own = UsersSettings.model_fields.keys() - ServiceSettings.model_fields.keys()

        assert table == {
            variable_of(UsersSettings, name): ""
            if UsersSettings.model_fields[name].is_required()
            else _shown(UsersSettings.model_fields[name].default)
            for name in own
        }


def _shown(default: float | str) -> str:
    return default if isinstance(default, str) else f"{default:g}"
