"""The settings of the gateway, read from its environment."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chassis.in_the_clear import crosses_in_the_clear
from chassis.settings import ProcessSettings
from services import FORWARDED, DeclaredService
from services.settings import one_for_each

_ORIGIN = r"^https?://[^/?#@\s]+/?$"


def _url_of(service: DeclaredService) -> dict[str, Any]:
    return {"pattern": _ORIGIN, "description": f"where the {service.name} service listens"}


@one_for_each(FORWARDED, "_url", str, _url_of)
class GatewaySettings(ProcessSettings):
    """The settings, as ``GATEWAY_…``."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    http_port: int = Field(
        default=8000, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )

    http_max_connections: int = Field(
        default=2_000,
        gt=0,
        le=30_000,
        description="most connections of clients at once; each stream is one",
    )
    http_max_connections_per_network: int | None = Field(
        default=200,
        gt=0,
        le=30_000,
        description="most connections from one IPv4 address or IPv6 /64, trusted proxies excepted",
    )

    operators_host: str = Field(
        default="127.0.0.1", description="address of the listener for operators"
    )
    operators_port: int = Field(
        default=8001,
        ge=0,
        le=65_535,
        description="port of the listener for operators; 0 takes a free one",
    )
    public_document: bool = Field(
        default=True,
        description="the public listener serves its API document and page; the one for operators"
        " always serves its own",
    )

    forward_secret: SecretStr = Field(
        min_length=32,
        description="proves to the users service that the gateway sent the client's address",
    )

    max_connections: int = Field(
        default=100, gt=0, le=10_000, description="most connections to each service"
    )
    max_connections_per_network: int = Field(
        default=50,
        gt=0,
        le=10_000,
        description="most of them for requests from one IPv4 address or IPv6 /64",
    )
    max_streams: int = Field(
        default=1_000,
        gt=0,
        le=30_000,
        description="most streams from each service; they take none of its other connections",
    )
    max_streams_per_network: int = Field(
        default=50,
        gt=0,
        le=30_000,
        description="most of them to one IPv4 address or IPv6 /64",
    )
    queue_timeout_s: float = Field(
        default=1.0, gt=0, le=30, description="longest wait for a free connection"
    )
    connect_timeout_s: float = Field(
        default=2.0, gt=0, le=30, description="longest wait for a service to accept a connection"
    )
    # Below half of shutdown_grace_s, which is what requests in flight have at a stop.
    answer_timeout_s: float = Field(
        default=8.0, gt=0, le=60, description="longest wait for the next part of a service's answer"
    )

    stream_silence_timeout_s: float = Field(
        default=40.0,
        gt=0,
        le=600,
        description="longest wait for the next part of a stream; services are silent for 15 s at"
        " most",
    )

    @property
    def listeners(self) -> tuple[str, ...]:
        return ("http", "operators")

    def in_the_clear(self) -> Iterator[tuple[str, str]]:
        yield from super().in_the_clear()
        for each in FORWARDED:
            if crosses_in_the_clear(self.url_of(each)):
                yield f"{each.identifier}_url", "must begin with https://"

    def url_of(self, service: DeclaredService) -> str:
        """Return where a service listens."""
        url: str = getattr(self, f"{service.identifier}_url")
        return url
