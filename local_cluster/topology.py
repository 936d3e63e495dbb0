"""The processes of the system, and the settings that connect them."""

import os
import sys
from dataclasses import dataclass

from local_cluster.credentials import secret
from local_cluster.postgres import Postgres
from local_cluster.processes import ProcessSpec
from local_cluster.settings import REPOSITORY, Settings

OPERATOR = "operator"
SLACK_STAND_IN = "slack-stand-in"
_STAGE = 2


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """One process: its module, the prefix of its settings, and its database if it has one."""

    name: str
    module: str
    prefix: str
    database: str | None = None

    @property
    def port_setting(self) -> str:
        """The field of ``Settings`` with its port."""
        return f"{self.name.replace('-', '_')}_port"


SERVICES = (
    ServiceProcess(SLACK_STAND_IN, "notification_service.slack_stand_in", "SLACK_STAND_IN_"),
    ServiceProcess("users", "users_service", "USERS_", "users"),
    ServiceProcess("accounts", "accounts_service", "ACCOUNTS_", "accounts"),
    ServiceProcess("audit", "audit_service", "AUDIT_", "audit"),
    ServiceProcess("notification", "notification_service", "NOTIFICATION_", "notification"),
    ServiceProcess("gateway", "gateway", "GATEWAY_"),
)

PORT_SETTINGS = {
    "kafka": ("kafka_port", "kafka_controller_port"),
    "postgres": ("postgres_port",),
    **{service.name: (service.port_setting,) for service in SERVICES},
}
"""The ports that each process needs, by the fields of ``Settings``."""


class Topology:
    """The services of one cluster, with its ports, databases and secrets."""

    def __init__(self, settings: Settings, postgres: Postgres) -> None:
        self._settings = settings
        self._postgres = postgres
        self._slack_token = os.environ.get("NOTIFICATION_SLACK_TOKEN")
        # With a token, messages go to the real Slack and the stand-in is not started.
        self.services = tuple(
            service
            for service in SERVICES
            if service.name != SLACK_STAND_IN or not self._slack_token
        )

    @property
    def databases(self) -> tuple[str, ...]:
        return tuple(service.database for service in self.services if service.database)

    def url(self, name: str) -> str:
        """Return the URL of a service."""
        service = next(service for service in SERVICES if service.name == name)
        return f"http://127.0.0.1:{getattr(self._settings, service.port_setting)}"

    def spec(self, service: ServiceProcess) -> ProcessSpec:
        """Return how the supervisor runs it."""
        return ProcessSpec(
            name=service.name,
            argv=(sys.executable, "-m", service.module),
            cwd=str(REPOSITORY),
            stage=_STAGE,
            environment=self.environment(service),
            # Longer than the services' own time for an orderly stop.
            stop_grace_s=25.0,
            port=getattr(self._settings, service.port_setting),
        )

    def environment(self, service: ServiceProcess) -> dict[str, str]:
        """Return its settings: those of the caller, overridden by those of this cluster."""
        prefix = service.prefix
        wired = {
            "HTTP_PORT": str(getattr(self._settings, service.port_setting)),
            "LOG_FORMAT": os.environ.get(f"{prefix}LOG_FORMAT", "json"),
        }
        if service.database:
            wired |= {
                "DATABASE_URL": self._postgres.url(service.database),
                "KAFKA_BOOTSTRAP": f"127.0.0.1:{self._settings.kafka_port}",
                "WORKER_NAME": f"{service.name}-1",
                "IDEMPOTENCY_SECRET": self._secret(f"{service.name}-idempotency"),
                "ENVIRONMENT": "development",
            }
        if service.name in ("accounts", "audit", "notification"):
            wired["JWKS_URL"] = f"{self.url('users')}/.well-known/jwks.json"
        return _settings_of_caller(prefix) | {
            f"{prefix}{name}": value for name, value in (wired | self._own(service.name)).items()
        }

    def verification_environment(self) -> dict[str, str]:
        """Return the environment of the verification, with the addresses of this cluster."""
        urls = {
            f"VERIFY_{each.upper()}_DATABASE_URL": self._postgres.url(each)
            for each in self.databases
        }
        urls["VERIFY_KAFKA_BOOTSTRAP"] = f"127.0.0.1:{self._settings.kafka_port}"
        if not self._slack_token:
            urls["VERIFY_SLACK_STAND_IN_URL"] = self.url(SLACK_STAND_IN)
        others = {k: value for k, value in os.environ.items() if not k.startswith("VERIFY_")}
        return others | urls

    def inherited_environment(self) -> dict[str, str]:
        """Return the environment of every process: the caller's, without the services' settings."""
        prefixes = tuple(service.prefix for service in SERVICES)
        return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}

    def _own(self, name: str) -> dict[str, str]:
        match name:
            case "users":
                return {
                    "KEYS_DIR": str(self._settings.directory / "keys"),
                    "GATEWAY_SECRET": self._secret("gateway-forward"),
                }
            case "slack-stand-in":
                return {"DIRECTORY": str(self._settings.directory / "slack")}
            case "notification" if not self._slack_token:
                return {"SLACK_BASE_URL": f"{self.url(SLACK_STAND_IN)}/api/"}
            case "gateway":
                backends = ("users", "accounts", "audit", "notification")
                return {
                    "FORWARD_SECRET": self._secret("gateway-forward"),
                    **{f"{backend.upper()}_URL": self.url(backend) for backend in backends},
                }
        return {}

    def _secret(self, name: str) -> str:
        return secret(self._settings.directory / "secrets" / name)


def _settings_of_caller(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}
