"""The directories and ports of the cluster, read from LOCAL_… variables."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services import SERVICES, DeclaredService
from services.settings import one_for_each

PROJECT = "kafka-native-onboarding"
REPOSITORY = Path(__file__).resolve().parent.parent


def _default_cache() -> Path:
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root, so another user must be able to read its programs.
        return Path("/var/cache") / PROJECT
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / PROJECT


def _port(default: int, owner: str) -> dict[str, Any]:
    return {"default": default, "ge": 1, "le": 65535, "description": f"port of {owner}"}


def _port_of(service: DeclaredService) -> dict[str, Any]:
    return _port(service.port, f"the {service.name} service")


WITH_OPERATORS_LISTENER = tuple(each for each in SERVICES if each.operators_port is not None)


def port_setting(service: DeclaredService) -> str:
    """Return the field of ``Settings`` with a service's port."""
    return f"{service.identifier}_port"


def operators_port_setting(service: DeclaredService) -> str:
    """Return the field of ``Settings`` with the port of a service's operators' listener."""
    return f"{service.identifier}_operators_port"


FullPath = Annotated[Path, AfterValidator(Path.absolute)]


@one_for_each(SERVICES, "_port", int, _port_of)
class Settings(BaseSettings):
    """One cluster: its directory, the shared cache, its ports."""

    model_config = SettingsConfigDict(env_prefix="LOCAL_", frozen=True, extra="forbid")

    directory: FullPath = Field(
        default=REPOSITORY / ".local", description="data, secrets and logs; removed by `clean`"
    )
    cache_directory: FullPath = Field(
        default_factory=_default_cache, description="what is downloaded, once per user"
    )
    kafka_port: int = Field(**_port(9092, "Kafka for clients"))
    kafka_controller_port: int = Field(**_port(29093, "Kafka's own controller"))
    postgres_port: int = Field(**_port(25432, "PostgreSQL"))
    gateway_operators_port: int = Field(**_port(8001, "the operators' listener of the gateway"))

    def port_of(self, service: DeclaredService) -> int:
        """Return the port of a service."""
        port: int = getattr(self, port_setting(service))
        return port

    def operators_port_of(self, service: DeclaredService) -> int:
        """Return the port at which a service serves operators."""
        if service.operators_port is None:
            return self.port_of(service)
        port: int = getattr(self, operators_port_setting(service))
        return port
