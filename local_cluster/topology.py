"""The processes of the system, and the settings that connect them."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from local_cluster.environment import inherited
from local_cluster.errors import ClusterError
from local_cluster.postgres import Postgres
from local_cluster.processes import ProcessSpec
from local_cluster.settings import (
    REPOSITORY,
    WITH_OPERATORS_LISTENER,
    Settings,
    operators_port_setting,
    port_setting,
)
from services import FORWARDED, SERVICES, DeclaredService, service_named
from services.secret_file import secret

OPERATOR = "operator"
SLACK_STAND_IN = "slack-stand-in"
_STAGE = 2


PORT_SETTINGS = {
    "kafka": ("kafka_port", "kafka_controller_port"),
    "postgres": ("postgres_port",),
    **{service.name: (port_setting(service),) for service in SERVICES},
    **{
        service.name: (port_setting(service), operators_port_setting(service))
        for service in WITH_OPERATORS_LISTENER
    },
}
"""The ports that each process needs, by the fields of ``Settings``."""


class Topology:
    """The services of one cluster, with its ports, databases and secrets."""

    def __init__(self, settings: Settings, postgres: Postgres) -> None:
        self._settings = settings
        self._postgres = postgres
        # With a token, messages go to the real Slack and the stand-in is not started.
        self.services = tuple(
            service for service in SERVICES if not os.environ.get(service.unless_set or "")
        )

    @property
    def databases(self) -> tuple[str, ...]:
        return tuple(service.name for service in self.services if service.database)

    def named(self, names: Sequence[str]) -> list[DeclaredService]:
        """Return these services.

        :raises ClusterError: there is none of such a name
        """
        known = {service.name: service for service in self.services}
        if unknown := [name for name in names if name not in known]:
            raise ClusterError(f"no service {', '.join(unknown)}; there are: {', '.join(known)}")
        return [known[name] for name in names]

    @property
    def urls(self) -> dict[str, str]:
        """Return the URL of each service that is started."""
        return {service.name: self.url(service.name) for service in self.services}

    def url(self, name: str) -> str:
        """Return the URL of a service."""
        return f"http://127.0.0.1:{self._settings.port_of(service_named(name))}"

    def operators_url(self, name: str) -> str:
        """Return the URL at which a service serves operators, and says why it is not ready."""
        return f"http://127.0.0.1:{self._settings.operators_port_of(service_named(name))}"

    def spec(self, service: DeclaredService) -> ProcessSpec:
        """Return how the supervisor runs it."""
        return ProcessSpec(
            name=service.name,
            argv=(sys.executable, "-m", service.module),
            cwd=str(REPOSITORY),
            stage=_STAGE,
            environment=self.environment(service),
            # Longer than the services' own time for an orderly stop.
            stop_grace_s=25.0,
            port=self._settings.port_of(service),
        )

    def environment(self, service: DeclaredService) -> dict[str, str]:
        """Return its settings: those of the caller, overridden by those of this cluster."""
        prefix = service.prefix
        wired = {
            "HTTP_PORT": str(self._settings.port_of(service)),
            "ENVIRONMENT": "development",
            "LOG_FORMAT": os.environ.get(f"{prefix}LOG_FORMAT", "json"),
        }
        if service.operators_port is not None:
            wired["OPERATORS_PORT"] = str(self._settings.operators_port_of(service))
        if service.database:
            wired |= {
                "DATABASE_URL": self._postgres.url(service.name),
                "KAFKA_BOOTSTRAP": f"127.0.0.1:{self._settings.kafka_port}",
                "WORKER_NAME": f"{service.name}-1",
                "IDEMPOTENCY_SECRET": self._secret(f"{service.name}-idempotency"),
            }
        if service.forwards:
            wired |= {f"{each.identifier.upper()}_URL": self.url(each.name) for each in FORWARDED}
        ours = {f"{prefix}{name}": value for name, value in (wired | self._own(service)).items()}
        # A secret's file is another way to set what this cluster sets.
        files = {f"{name}_FILE" for name in ours}
        of_caller = _settings_of_caller(prefix).items()
        return {name: value for name, value in of_caller if name not in files} | ours

    def verification_environment(self) -> dict[str, str]:
        """Return the environment of the verification, with the addresses of this cluster."""
        urls = {
            f"VERIFY_{each.upper()}_DATABASE_URL": self._postgres.url(each)
            for each in self.databases
        }
        urls["VERIFY_KAFKA_BOOTSTRAP"] = f"127.0.0.1:{self._settings.kafka_port}"
        if SLACK_STAND_IN in self.urls:
            urls["VERIFY_SLACK_STAND_IN_URL"] = self.url(SLACK_STAND_IN)
        return inherited(self._settings.directory) | urls

    def _own(self, service: DeclaredService) -> dict[str, str]:
        """Return the settings that ``services.toml`` gives it."""
        own = {}
        for name, template in service.settings.items():
            # A setting with the address of a service that is not started is left out.
            with suppress(_NotStarted):
                own[name] = template.format(
                    directory=self._settings.directory,
                    url=_Lookup(self._url_of_started),
                    secret=_Lookup(self._secret),
                )
        return own

    def _url_of_started(self, name: str) -> str:
        if name not in self.urls:
            raise _NotStarted
        return self.url(name)

    def _secret(self, name: str) -> str:
        return secret(self._settings.directory / "secrets" / name)


class _NotStarted(Exception):
    """A setting needs the address of a service that is not started."""


class _Lookup:
    """Makes ``{url[users]}`` in a template call a function with ``users``."""

    def __init__(self, find: Callable[[str], str]) -> None:
        self._find = find

    def __getitem__(self, name: str) -> str:
        return self._find(name)


def _settings_of_caller(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}
