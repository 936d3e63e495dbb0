"""The settings of the users service."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings, SharedSecret, networks_in


class UsersSettings(ServiceSettings):
    """The settings of the users service, from ``USERS_…``."""

    model_config = SettingsConfigDict(env_prefix="USERS_")

    http_port: int = Field(
        default=28_101, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )

    keys_dir: Path = Field(description="directory of the keys that sign access tokens")
    keys_published_ahead_s: float = Field(
        default=120.0,
        ge=0,
        le=86_400,
        description="time that readers have to fetch a new key before it signs",
    )
    sign_in_secret: SecretStr = Field(
        min_length=32, description="key under which sign-ins are counted, 32 characters or more"
    )
    gateway_secret: SharedSecret = Field(
        description="sent by the gateway as X-Gateway-Secret; only then its X-Forwarded-For counts",
    )

    # OWASP Password Storage Cheat Sheet: m = 19 MiB, t = 2, p = 1.
    argon2_memory_kib: int = Field(
        default=19_456, ge=8, le=1_048_576, description="memory that one password hash takes"
    )
    argon2_passes: int = Field(default=2, ge=1, le=100, description="passes over that memory")
    argon2_lanes: int = Field(default=1, ge=1, le=64, description="lanes of one hash")
    argon2_threads: int = Field(default=2, ge=1, le=64, description="hashes made at once, at most")
    argon2_waiting: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="hashes begun or waiting, for sign-ups and for sign-ins each; more get 503",
    )
    # With the deadline of a command it is what the gateway waits for an answer.
    argon2_wait_s: float = Field(
        default=2.0, gt=0, le=60, description="longest wait of a hash to begin; then it is dropped"
    )

    sign_in_window_s: int = Field(
        default=300,
        gt=0,
        le=86_400,
        description="time within which failed sign-ins, and sign-ups, are counted",
    )
    sign_ins_per_name: int = Field(
        default=10,
        gt=0,
        le=1_000_000,
        description="failed sign-ins for one name from one network in that time, at most",
    )
    # NIST SP 800-63B, 5.2.2: no more than 100.
    sign_ins_per_name_everywhere: int = Field(
        default=100,
        gt=0,
        le=1_000_000,
        description="failed sign-ins for one name from all networks in that time, at most; networks"
        " from which it signed in lately are exempt",
    )
    sign_in_networks_kept_days: int = Field(
        default=30, gt=0, le=3_650, description="how long a network counts as one of those"
    )
    sign_ins_per_network: int = Field(
        default=100,
        gt=0,
        le=1_000_000,
        description="failed sign-ins from one IPv4 address or IPv6 /64 in that time, at most",
    )
    sign_ups_per_network: int = Field(
        default=100,
        gt=0,
        le=1_000_000,
        description="sign-ups from one IPv4 address or IPv6 /64 in that time, at most, refused ones"
        " included",
    )
    shared_networks: str = Field(
        default="",
        description="addresses or networks, comma separated, that many people share, such as the"
        " NAT of an office",
    )
    shared_network_times: int = Field(
        default=50,
        gt=0,
        le=10_000,
        description="how many times the limits of one network hold for an address of those",
    )

    @field_validator("shared_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        networks_in(value)
        return value

    def shared(self) -> Sequence[IPv4Network | IPv6Network]:
        """Return the networks that many people share."""
        return networks_in(self.shared_networks)
