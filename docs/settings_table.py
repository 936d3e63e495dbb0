"""Writes docs/settings.md: every setting of every process, as the code has it (``make docs``)."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from chassis.settings import (
    KafkaSettings,
    ProcessSettings,
    ServiceSettings,
    TokenReaderSettings,
    is_secret,
)
from local_cluster.misspelt import settings_of
from local_cluster.settings import REPOSITORY, Settings
from services import FILE, SERVICES
from services.settings import ONE_FOR_EACH
from verification.settings import VerifySettings

PAGE: Final = REPOSITORY / "docs" / "settings.md"
# Each process has another default.
_PORT: Final = "http_port"


SECTIONS: Final[tuple[tuple[str, type[BaseSettings]], ...]] = (
    ("Every process", ProcessSettings),
    ("Every service", ServiceSettings),
    ("Every service, and the verification", KafkaSettings),
    ("Every service but users", TokenReaderSettings),
    *((service.name, settings_of(service)) for service in SERVICES),
    ("The verification", VerifySettings),
    ("The local cluster", Settings),
)

_HEAD: Final = """\
# Settings

<!-- Written by `make docs` from the settings classes. -->

Every setting is an environment variable. A process reads its settings once, when it starts. With a
wrong setting it does not start: it names each wrong one and exits with code 2. An empty variable
counts as not set, except those of the local cluster (`LOCAL_…`).

A secret may be in a file instead, which the variable with `_FILE` names:
`USERS_DATABASE_URL_FILE=/run/secrets/users-database`. An empty file is refused.

The processes are those of [`services.toml`](../services/services.toml). In the first tables `…`
stands for the prefix of the process, its name in capitals: `USERS_` or `SLACK_STAND_IN_`. A process
without a database does not use Kafka either, so only the first table applies to it. A process
without a table below has no settings of its own.

`make up` sets what is needed, and passes on what you set for a process yourself:
`USERS_LOG_LEVEL=DEBUG make up`. The verification (`VERIFY_`,
[what it is](operations.md#is-anything-lost)) runs only while it checks; `make verify` sets what it
needs.
"""


def page() -> str:
    """Return what docs/settings.md should contain."""
    return _HEAD + "".join(_section(title, settings) for title, settings in SECTIONS)


def _section(title: str, settings: type[BaseSettings]) -> str:
    # Of settings of which there is one for each service, one row stands for all.
    rows = dict.fromkeys(_row(settings, name, field) for name, field in own_fields(settings))
    if not rows:
        return ""
    return f"\n## {title}\n\n| setting | default | what |\n|---|---|---|\n{''.join(rows)}"


def _row(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    prefix = settings.model_config["env_prefix"] or "…"
    extra = field.json_schema_extra
    if isinstance(extra, dict) and ONE_FOR_EACH in extra:
        suffix = str(extra[ONE_FOR_EACH]).upper()
        default = "must be set" if field.is_required() else f"in `{FILE.name}`"
        meaning = re.sub(r"the [\w-]+ service", "each service", _meaning(field))
        meaning += f": `{prefix}USERS{suffix}` and so on"
        return f"| `{prefix}…{suffix}` | {default} | {meaning} |\n"
    default = f"in `{FILE.name}`" if name == _PORT else _default(name, field)
    return f"| `{prefix}{name.upper()}` | {default} | {_meaning(field)} |\n"


def own_fields(settings: type[BaseSettings]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields of no other section."""
    others = {each for _, each in SECTIONS} - {settings}
    inherited = {
        name for each in others if issubclass(settings, each) for name in each.model_fields
    }
    for name, field in settings.model_fields.items():
        if name not in inherited:
            yield name, field


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    if field.default_factory is not None:
        return "the host's name" if name == "worker_name" else "depends on the user"
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
    if is_secret(field):
        meaning += " (a secret)"
    if get_origin(field.annotation) is Literal:
        choices = ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
        meaning += f" ({choices})"
    return meaning.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
