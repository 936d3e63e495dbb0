"""Writes docs/settings.md: every setting of every process, as the code has it (``make docs``)."""

from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from chassis.settings import KafkaSettings, ProcessSettings, ServiceSettings, TokenReaderSettings
from local_cluster.settings import REPOSITORY, Settings
from services import SERVICES, DeclaredService
from verification.settings import VerifySettings

PAGE: Final = REPOSITORY / "docs" / "settings.md"


def settings_of(service: DeclaredService) -> type[ProcessSettings]:
    """Return the settings class of a service's own module ``settings``."""
    module = import_module(f"{service.module}.settings")
    (settings,) = (
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, ProcessSettings)
        and each.__module__ == module.__name__
    )
    return settings


SECTIONS: Final[tuple[tuple[str, type[BaseSettings]], ...]] = (
    ("Every process", ProcessSettings),
    ("Every service", ServiceSettings),
    ("Every service, and the verification", KafkaSettings),
    ("Every service but users", TokenReaderSettings),
    *((service.name, settings_of(service)) for service in SERVICES),
    ("The verification", VerifySettings),
    ("The local cluster", Settings),
)

_PREFIXES: Final = [f"`{service.prefix}`" for service in SERVICES]
_WITHOUT_DATABASE: Final = [each.name for each in SERVICES if not each.database]

_HEAD: Final = f"""\
# Settings

<!-- Written by `make docs` from the settings classes. -->

Every setting is an environment variable. A process reads its settings once, when it starts. With a
wrong setting it does not start: it names each wrong one and exits with code 2. An empty variable
counts as not set, except those of the local cluster (`LOCAL_…`).

In the first tables `…` stands for the prefix of the process:
{", ".join(_PREFIXES[:-1])} or {_PREFIXES[-1]}.
{" and ".join(_WITHOUT_DATABASE)} have no database and do not use Kafka, so only the first table
applies to them. `make up` sets what is needed, and passes on what you set for a process yourself:
`USERS_LOG_LEVEL=DEBUG make up`. The verification (`VERIFY_`,
[what it is](operations.md#is-anything-lost)) runs only while it checks; `make verify` sets what it
needs.
"""


def page() -> str:
    """Return what docs/settings.md should contain."""
    return _HEAD + "".join(_section(title, settings) for title, settings in SECTIONS)


def _section(title: str, settings: type[BaseSettings]) -> str:
    prefix = settings.model_config["env_prefix"] or "…"
    rows = "".join(
        f"| `{prefix}{name.upper()}` | {_default(field)} | {_meaning(field)} |\n"
        for name, field in own_fields(settings)
    )
    return f"\n## {title}\n\n| setting | default | what |\n|---|---|---|\n{rows}"


def own_fields(settings: type[BaseSettings]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields of no other section, except those that each process redeclares."""
    processes = [
        each
        for _, each in SECTIONS
        if each is not settings and issubclass(each, settings) and each.model_config["env_prefix"]
    ]
    for name, field in settings.model_fields.items():
        redeclared = processes and all(name in _declared_by(each) for each in processes)
        if name in _declared_by(settings) and not redeclared:
            yield name, field


def _declared_by(settings: type[BaseSettings]) -> set[str]:
    """Return the fields of the class, and of its bases that have no section of their own."""
    others = {each for _, each in SECTIONS} - {settings}
    classes = (
        each
        for each in settings.__mro__
        if each is settings or not any(issubclass(other, each) for other in others)
    )
    return {name for each in classes for name in each.__annotations__}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    if field.default_factory is not None:
        return "depends on the user"
    return f"`{text}`" if (text := _text(field.default)) else "not set"


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case Path():
            return str(value.relative_to(REPOSITORY))
        case Enum():
            return str(value.value)
        case frozenset():
            return ",".join(sorted(map(_text, value)))
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _meaning(field: FieldInfo) -> str:
    meaning = str(field.description)
    if get_origin(field.annotation) is Literal:
        choices = ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
        meaning += f" ({choices})"
    return meaning.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
