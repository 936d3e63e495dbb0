"""Writes docs/settings.md: every setting of every process, as the code has it (``make docs``)."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from accounts_service.settings import AccountsSettings
from audit_service.settings import AuditSettings
from chassis.settings import KafkaSettings, ProcessSettings, ServiceSettings, TokenReaderSettings
from gateway.settings import GatewaySettings
from local_cluster.settings import REPOSITORY, Settings
from notification_service.settings import NotificationSettings
from notification_service.slack_stand_in.settings import StandInSettings
from users_service.settings import UsersSettings
from verification.settings import VerifySettings

PAGE: Final = REPOSITORY / "docs" / "settings.md"

SECTIONS: Final[tuple[tuple[str, type[BaseSettings]], ...]] = (
    ("Every process", ProcessSettings),
    ("Every service", ServiceSettings),
    ("Every service, and the verification", KafkaSettings),
    ("Every service but users", TokenReaderSettings),
    ("users", UsersSettings),
    ("accounts", AccountsSettings),
    ("audit", AuditSettings),
    ("notification", NotificationSettings),
    ("gateway", GatewaySettings),
    ("The stand-in for Slack", StandInSettings),
    ("The verification", VerifySettings),
    ("The local cluster", Settings),
)

_HEAD: Final = """\
# Settings

<!-- Written by `make docs` from the settings classes. -->

Every setting is an environment variable. A process reads its settings once, when it starts. With a
wrong setting it does not start: it names each wrong one and exits with code 2. An empty variable
counts as not set, except those of the local cluster (`LOCAL_…`).

In the first tables `…` stands for the prefix of the process: `USERS_`, `ACCOUNTS_`, `AUDIT_`,
`NOTIFICATION_`, `GATEWAY_` or `SLACK_STAND_IN_`. The gateway and the stand-in for Slack have no
database and do not use Kafka, so only the first table applies to them. `make up` sets what is
needed, and passes on what you set for a process yourself: `USERS_LOG_LEVEL=DEBUG make up`. The
verification (`VERIFY_`, [what it is](operations.md#is-anything-lost)) runs only while it checks;
`make verify` sets what it needs.
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
    """Yield the fields that the class itself declares, unless each process redeclares them."""
    processes = [
        each
        for _, each in SECTIONS
        if each is not settings and issubclass(each, settings) and each.model_config["env_prefix"]
    ]
    for name, field in settings.model_fields.items():
        redeclared = processes and all(name in each.__annotations__ for each in processes)
        if name in settings.__annotations__ and not redeclared:
            yield name, field


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
