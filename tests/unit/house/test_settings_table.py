"""docs/settings.md lists every setting of every process, as it is in the code."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from annotated_types import Le, Lt
from pydantic_settings import BaseSettings

from chassis.settings import SecretsFromFiles, is_secret
from docs.settings_table import PAGE, SECTIONS, own_fields, page

from .repository import files, pages, prose, read

CLASSES = [settings for _, settings in SECTIONS]
every_class = pytest.mark.parametrize("settings", CLASSES, ids=lambda each: each.__name__)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make docs"


def test_no_settings_class_is_left_out() -> None:
    for path in files():
        if path.name == "settings.py":
            import_module(".".join(path.with_suffix("").parts))

    def below(settings: type[BaseSettings]) -> set[type[BaseSettings]]:
        ours = {each for each in settings.__subclasses__() if is_ours(each)}
        return ours.union(*map(below, ours))

    # By name: a class with one field for each service is made from a class of the same name.
    assert {name_of(each) for each in below(BaseSettings)} == {name_of(each) for each in CLASSES}


def name_of(settings: type[BaseSettings]) -> str:
    return f"{settings.__module__}.{settings.__name__}"


def is_ours(settings: type[BaseSettings]) -> bool:
    package = settings.__module__.split(".")[0]
    return package not in ("pydantic_settings", "tests") and any(
        path.parts[0] == package for path in files()
    )


@every_class
def test_each_setting_has_a_description(settings: type[BaseSettings]) -> None:
    undescribed = [name for name, field in own_fields(settings) if not field.description]

    assert undescribed == []


@every_class
def test_each_number_has_an_upper_bound(settings: type[BaseSettings]) -> None:
    """Infinity is a number too, and a time that is too long breaks what waits for it."""
    unbounded = [
        name
        for name, field in own_fields(settings)
        if field.annotation in (int, float)
        and not any(isinstance(each, Le | Lt) for each in field.metadata)
    ]

    assert unbounded == []


@every_class
def test_no_secret_has_a_default(settings: type[BaseSettings]) -> None:
    for field in settings.model_fields.values():
        if is_secret(field):
            assert field.is_required() or field.default is None


@every_class
def test_each_secret_may_be_in_a_file(settings: type[BaseSettings]) -> None:
    if any(map(is_secret, settings.model_fields.values())):
        assert issubclass(settings, SecretsFromFiles)


PREFIXES = [each.model_config["env_prefix"] for each in CLASSES if each.model_config["env_prefix"]]
VARIABLES = {
    f"{each.model_config['env_prefix']}{name}{suffix}".upper()
    for each in CLASSES
    for name, field in each.model_fields.items()
    for suffix in ("", "_file" if is_secret(field) else "")
}


@pytest.mark.parametrize("path", pages(), ids=str)
def test_a_setting_that_a_page_names_exists(path: Path) -> None:
    named = set(re.findall(rf"\b(?:{'|'.join(PREFIXES)})[A-Z_0-9]+\b", prose(path)))

    assert named <= VARIABLES


def test_the_table_of_the_local_clusters_page_has_the_same_defaults() -> None:
    rows = {line for line in page().splitlines() if line.startswith("| `LOCAL_")}
    theirs = read("local_cluster/README.md")

    for row in rows:
        variable, default = (cell.strip(" `") for cell in row.split("|")[1:3])
        assert f"| `{variable}` | " in theirs
        assert not default.isdecimal() or f"| `{variable}` | {default} | " in theirs
