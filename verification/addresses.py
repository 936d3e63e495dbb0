"""The addresses of everything that is read, and the error where it cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from chassis.kafka.client import KafkaSecurity
from services import WITH_DATABASE

SERVICES: Final = tuple(each.name for each in WITH_DATABASE)
"""The services that own a database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The databases by the names of their services, and Kafka; Slack's stand-in where it runs."""

    databases: Mapping[str, str] = field(repr=False)
    kafka_bootstrap: str
    kafka_security: KafkaSecurity = field(default=KafkaSecurity(), repr=False)
    slack_stand_in_url: str | None = None


class CannotVerify(Exception):
    """The check is not possible: a part does not answer, or the system does not come to rest."""
