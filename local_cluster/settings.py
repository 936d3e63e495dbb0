"""The directories and ports of the cluster, read from LOCAL_… variables."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = "kafka-native-onboarding"
REPOSITORY = Path(__file__).resolve().parent.parent


def _default_cache() -> Path:
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root, so another user must be able to read its programs.
        return Path("/var/cache") / PROJECT
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / PROJECT


def _port(default: int, owner: str) -> int:
    port: int = Field(default=default, ge=1, le=65535, description=f"port of {owner}")
    return port


FullPath = Annotated[Path, AfterValidator(Path.absolute)]


class Settings(BaseSettings):
    """One cluster: its directory, the shared cache, its ports."""

    model_config = SettingsConfigDict(env_prefix="LOCAL_", frozen=True, extra="forbid")

    directory: FullPath = Field(
        default=REPOSITORY / ".local", description="data, secrets and logs; removed by `clean`"
    )
    cache_directory: FullPath = Field(
        default_factory=_default_cache, description="what is downloaded, once per user"
    )
    gateway_port: int = _port(8000, "the gateway, the one address for clients")
    kafka_port: int = _port(9092, "Kafka for clients")
    kafka_controller_port: int = _port(29093, "Kafka's own controller")
    postgres_port: int = _port(25432, "PostgreSQL")
    users_port: int = _port(28101, "the users service")
    accounts_port: int = _port(28102, "the accounts service")
    audit_port: int = _port(28103, "the audit service")
    notification_port: int = _port(28104, "the notification service")
    slack_stand_in_port: int = _port(28105, "the local stand-in for Slack")
