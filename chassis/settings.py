"""The settings of every service, read from its environment once, when it starts."""

import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args

from pydantic import (
    AfterValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from chassis.in_the_clear import (
    are_on_this_machine,
    crosses_in_the_clear,
    is_on_this_machine,
    is_unverified,
)

BAD_SETTINGS_EXIT_CODE = 2
_SHORTEST_SECRET = 32
# Such as LOG_LEVL for LOG_LEVEL, 0.94, but not PORT for HTTP_PORT, 0.62.
_NEARLY = 0.8


class Role(StrEnum):
    """A part of a service that a process may run: its routes, its relay, its consumers."""

    API = "api"
    RELAY = "relay"
    AGENTS = "agents"


class WrongSecretFile(Exception):
    """The file of a secret can't be read; the message names the variable."""


def secret_of(variable: str) -> str | None:
    """Return the secret that an environment variable holds, or the file that ``…_FILE`` names.

    :raises WrongSecretFile: the file is empty or can't be read, or both variables are set
    """
    value, file = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
    if not file:
        return value or None
    if value:
        raise WrongSecretFile(f"{variable}_FILE: is set, and {variable} too")
    try:
        secret = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise WrongSecretFile(f"{variable}_FILE: {reason}") from error
    if not secret:
        # An optional secret would count as not set, and the process would start without it.
        raise WrongSecretFile(f"{variable}_FILE: is empty")
    return secret


def is_secret(field: FieldInfo) -> bool:
    """Return whether this field of settings is a secret."""
    return SecretStr in (field.annotation, *get_args(field.annotation))


class _Secrets(PydanticBaseSettingsSource):
    """The secrets, each from its variable or from the file that ``…_FILE`` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value = secret_of(variable_of(self.settings_cls, field_name)) if is_secret(field) else None
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        fields = self.settings_cls.model_fields
        values = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class SecretsFromFiles:
    """Settings whose secrets may be in files."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - we have no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - named by a variable
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Secrets(settings_cls), env_settings


def values_of(secret: SecretStr) -> list[bytes]:
    """Return the values of a secret, which has two while it is changed: the first is used.

    The other is accepted too.
    """
    return [each.strip().encode() for each in secret.get_secret_value().split(",")]


def _is_long_enough(value: SecretStr) -> SecretStr:
    values = values_of(value)
    if len(values) > 2 or any(len(each) < _SHORTEST_SECRET for each in values):
        raise ValueError(
            f"must be {_SHORTEST_SECRET} characters or more, or two such values, comma separated"
        )
    return value


SharedSecret = Annotated[SecretStr, AfterValidator(_is_long_enough)]
"""A secret that may have two values while it is changed (``values_of``)."""


def networks_in(text: str) -> Sequence[IPv4Network | IPv6Network]:
    """Return the addresses and networks that a text names, comma separated.

    :raises ValueError: one is none
    """
    return [ip_network(each.strip()) for each in text.split(",") if each.strip()]


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64]


class ProcessSettings(SecretsFromFiles, BaseSettings):
    """The settings of every process that answers HTTP; subclassed with an ``env_prefix``."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    environment: Literal["development", "production"] = Field(
        default="production",
        description="production refuses connections in the clear; development allows them, and"
        " topics with less than the catalogue asks for",
    )
    network_is_trusted: bool = Field(
        default=False,
        description="allow connections in the clear in production too: something else, such as a"
        " service mesh, encrypts and authenticates them",
    )
    http_host: str = Field(default="127.0.0.1", description="address that HTTP listens on")
    http_port: int = Field(ge=0, le=65_535, description="port of HTTP; 0 takes a free one")
    max_body_bytes: int = Field(
        default=65_536, gt=0, le=2**30, description="largest request body, in bytes"
    )
    http_max_connections: int = Field(
        default=1_000, gt=0, le=30_000, description="most connections of clients at once"
    )
    http_max_connections_per_network: int | None = Field(
        default=None,
        gt=0,
        le=30_000,
        description="most of them from one IPv4 address or IPv6 /64, trusted proxies excepted; at"
        " the gateway 200 unless it is set, elsewhere there is no bound",
    )
    http_head_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="time for a client to send a request's head, from the moment of connecting",
    )
    http_body_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="time for a client to send the body after it"
    )
    http_reading_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="time for a client to receive each part of an answer",
    )
    hsts_max_age_s: int | None = Field(
        default=None,
        ge=0,
        le=63_072_000,
        description="max-age of Strict-Transport-Security in answers over HTTPS; by default they"
        " have no such field",
    )
    trusted_proxies: str = Field(
        default="",
        description="addresses or networks, comma separated, to trust with X-Forwarded-For",
    )
    shutdown_grace_s: float = Field(
        default=20.0, gt=0, le=600, description="time for an orderly stop; then the process ends"
    )
    worker_name: str = Field(
        default_factory=_host_name,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="name of this process among those of its service, the same after a restart",
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="one JSON object on each line, or lines for people"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="lowest level that is logged"
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="OTLP/HTTP address that spans are sent to, such as http://127.0.0.1:4318",
    )

    http_certificate_file: FilePath | None = Field(
        default=None,
        description="PEM file of this process's certificate and its chain: it serves HTTPS then",
    )
    http_key_file: FilePath | None = Field(
        default=None,
        description="PEM file of that certificate's key, if it is not in the same file",
    )
    http_ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the authorities that sign the certificates of the services which"
        " this process calls; by default the system's",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        # A name, or everybody, would let clients choose the network that they come from.
        networks_in(value)
        return value

    @property
    def serves_routes(self) -> bool:
        """Whether this process answers requests beside those about itself."""
        return True

    def in_the_clear(self) -> Iterator[tuple[str, str]]:
        """Yield each setting by which something crosses a network unprotected, and what is wrong.

        Production does not start with one, unless the network is trusted.
        """
        if self.http_certificate_file is None:
            for host in (getattr(self, f"{each}_host") for each in self.listeners):
                if not is_on_this_machine(host):
                    yield "http_certificate_file", f"is not set, and HTTP is served on {host}"
        if self.otlp_endpoint is not None and crosses_in_the_clear(self.otlp_endpoint):
            yield "otlp_endpoint", "must begin with https://"

    @property
    def listeners(self) -> tuple[str, ...]:
        """Where this process listens, by the names of the settings ``…_host`` and ``…_port``."""
        return ("http",)


def _is_postgresql(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith("postgresql://"):
        raise ValueError("must begin with postgresql://")
    return value


DatabaseUrl = Annotated[SecretStr, AfterValidator(_is_postgresql)]


class KafkaSettings(SecretsFromFiles, BaseSettings):
    """Where Kafka is, and how a client authenticates itself."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", min_length=1, description="host:port of brokers, comma separated"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="protocol of the connections to the brokers"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="how this process signs in to the brokers"
    )
    kafka_sasl_username: str | None = Field(default=None, description="user name at the brokers")
    kafka_sasl_password: SecretStr | None = Field(
        default=None, description="password at the brokers"
    )
    kafka_ca_file: FilePath | None = Field(
        default=None, description="PEM file of the authorities that sign the brokers' certificates"
    )
    kafka_certificate_file: FilePath | None = Field(
        default=None, description="PEM file of this process's own certificate, and its chain"
    )
    kafka_key_file: FilePath | None = Field(
        default=None,
        description="PEM file of that certificate's key, if it is not in the same file",
    )

    def kafka_in_the_clear(self) -> Iterator[tuple[str, str]]:
        """Yield what lets others read the connections to the brokers, or use them."""
        if are_on_this_machine(self.kafka_bootstrap):
            return
        if not self.kafka_security_protocol.endswith("SSL"):
            yield "kafka_security_protocol", "must be SASL_SSL, or SSL with a certificate"
        elif self.kafka_security_protocol == "SSL" and self.kafka_certificate_file is None:
            yield "kafka_certificate_file", "must be set with SSL, or nobody authenticates"


class ServiceSettings(ProcessSettings, KafkaSettings):
    """The settings of a service that owns a database and uses Kafka."""

    roles: Annotated[frozenset[Role], NoDecode] = Field(
        default=frozenset(Role),
        min_length=1,
        description="roles that this process runs, comma separated: api, relay, agents",
    )

    database_url: DatabaseUrl = Field(
        description="postgresql://login:password@host:port/database, as libpq takes it: with"
        " ?sslmode=verify-full&sslrootcert=… it is verified; several hosts are comma separated"
    )
    database_pool_size: int = Field(
        default=10, gt=0, le=200, description="most connections of a pool"
    )
    outbox_slot: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_]{1,63}$",
        description="logical replication slot through which Debezium publishes the outbox in the"
        " relay's place: as long as it is there, rows are deleted in the transaction that wrote"
        " them, and no process may run the role relay",
    )

    command_deadline_s: float = Field(
        default=6.0,
        gt=0,
        le=60,
        description="longest a command may take with all its attempts; less than the gateway waits",
    )
    # A group waits so long for a member that died, and a worker that has not joined in 30 s ends.
    kafka_session_timeout_s: float = Field(
        default=6.0,
        gt=0,
        le=20,
        description="a worker that is silent for so long loses its partitions",
    )
    chunk_max_events: int = Field(
        default=500, gt=0, le=10_000, description="most events that one transaction handles"
    )
    replay_behind_events: int = Field(
        default=10_000,
        gt=0,
        le=1_000_000_000,
        description="a subscriber that is further behind another of its topic reads by itself, so"
        " that it does not hold up the other",
    )
    replay_events_per_s: float = Field(
        default=2_000.0,
        gt=0,
        le=1_000_000,
        description="events that this process replays a second, at most",
    )
    dead_letter_limit: int = Field(
        default=50,
        gt=0,
        le=10_000,
        description="aggregates of one topic that may park with one error within the window; with"
        " one more the consumer stops, and parks none of them",
    )
    dead_letter_window_s: float = Field(
        default=60.0, gt=0, le=3_600, description="window of time in which they are counted"
    )
    # PostgreSQL ends the relay's session, and frees its lock, after it has been idle for 6 s.
    relay_idle_s: float = Field(
        default=0.05,
        gt=0,
        le=3,
        description="longest sleep when the outbox is empty; twenty times"
        " as long, but 1 s at most, where no other process has committed to it for 10 s",
    )
    timers_per_s: float = Field(
        default=100.0,
        gt=0,
        le=10_000,
        description="timers that this process begins a second, at most",
    )
    timers_at_once: int = Field(
        default=4, gt=0, le=100, description="timers that it handles at once, at most"
    )
    outbox_age_limit_s: float | None = Field(
        default=None,
        gt=0,
        le=2_592_000,
        description="commands that publish are refused (503) while an event has waited for longer"
        " in the outbox; by default none is",
    )

    access_token_issuer: str = Field(
        default="users", min_length=1, description="issuer of access tokens (their iss)"
    )
    access_token_audience: str = Field(
        default="onboarding", min_length=1, description="audience of access tokens (their aud)"
    )
    access_token_lifetime_s: int = Field(
        default=900,
        gt=0,
        le=86_400,
        description="how long an access token is valid, the same in every service; keys that the"
        " users service has not confirmed for so long are not used",
    )
    idempotency_secret: SharedSecret = Field(
        description="key of the requests' fingerprints, 32 characters or more"
    )

    @property
    def serves_routes(self) -> bool:
        return Role.API in self.roles

    def in_the_clear(self) -> Iterator[tuple[str, str]]:
        yield from super().in_the_clear()
        yield from self.kafka_in_the_clear()
        if is_unverified(self.database_url.get_secret_value()):
            yield "database_url", "must have sslmode=verify-full"

    @field_validator("outbox_slot")
    @classmethod
    def _is_not_beside_the_relay(cls, value: str | None, others: ValidationInfo) -> str | None:
        # Two would publish, and the relay what it finds long before it is deleted.
        if value is not None and Role.RELAY in others.data.get("roles", ()):
            raise ValueError("is set, so the roles must not contain relay (such as api,agents)")
        return value

    @field_validator("roles", mode="before")
    @classmethod
    def _split_roles(cls, value: object) -> object:
        if isinstance(value, str):
            return [role.strip() for role in value.split(",") if role.strip()]
        return value


def variable_of(settings_class: type[BaseSettings], field: str) -> str:
    """Return the name of the environment variable that sets this field."""
    return f"{settings_class.model_config.get('env_prefix') or ''}{field}".upper()


def misspelt(settings_class: type[BaseSettings]) -> Iterator[str]:
    """Yield a line for each variable that has the prefix of these settings and is nearly one.

    Others are none of our business: Kubernetes sets ``USERS_SERVICE_HOST`` for a service ``users``.
    """
    known = {variable_of(settings_class, name) for name in settings_class.model_fields}
    # Those of Kafka alone have no prefix, but begin alike.
    prefix = variable_of(settings_class, "") or os.path.commonprefix(sorted(known))  # noqa: RUF071
    known |= {f"{name}_FILE" for name in known}
    names = {each.removeprefix(prefix) for each in known}
    for variable in sorted(os.environ.keys() - known):
        if variable.startswith(prefix):
            name = variable.removeprefix(prefix)
            for nearest in get_close_matches(name, names, 1, _NEARLY):
                yield f"{variable} is no setting; the nearest is {prefix}{nearest}"


class TokenReaderSettings(ServiceSettings):
    """The settings of a service that verifies access tokens of the users service."""

    jwks_url: str = Field(
        pattern=r"^https?://", description="where the keys that sign access tokens are published"
    )

    def in_the_clear(self) -> Iterator[tuple[str, str]]:
        yield from super().in_the_clear()
        if crosses_in_the_clear(self.jwks_url):
            yield "jwks_url", "must begin with https://"


S = TypeVar("S", bound=BaseSettings)


def read_settings(settings_class: type[S], **given: Any) -> S:
    """Read the settings from the environment, or name each wrong one and exit.

    :param given: settings that are not read, but have these values
    :raises SystemExit: with code 2, after one line on standard error for each wrong setting
    """
    for line in misspelt(settings_class):
        print(f"warning: {line}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
    try:
        return settings_class(**given)
    except WrongSecretFile as error:
        _exit_with([str(error)])
    except ValidationError as error:
        _exit_naming(settings_class, error.errors(include_url=False, include_input=False))


def exit_if_in_the_clear(settings: ProcessSettings) -> None:
    """Exit if something of a process in production would cross a network unprotected.

    :raises SystemExit: with code 2, after one line on standard error for each such setting
    """
    if settings.environment == "production" and not settings.network_is_trusted:
        found = dict(settings.in_the_clear())
        if found:
            trusted = variable_of(type(settings), "network_is_trusted")
            _exit_with(
                f"{variable_of(type(settings), field)}: {why}; if the network protects it,"
                f" {trusted}=true says so"
                for field, why in found.items()
            )


def _exit_naming(settings_class: type[BaseSettings], errors: list[ErrorDetails]) -> NoReturn:
    wrong: dict[str, str] = {}
    for each in errors:
        message = "is not set" if each["type"] == "missing" else each["msg"]
        message = message.removeprefix("Value error, ")
        wrong.setdefault(variable_of(settings_class, str(each["loc"][0])), message)
    _exit_with(f"{variable}: {message}" for variable, message in wrong.items())


def _exit_with(lines: Iterable[str]) -> NoReturn:
    for each in lines:
        print(each, file=sys.stderr)  # noqa: T201 - logging is not set up yet
    raise SystemExit(BAD_SETTINGS_EXIT_CODE)
