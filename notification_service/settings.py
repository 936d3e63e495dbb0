"""The settings of the notification service."""

from collections.abc import Iterator
from typing import Final

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from chassis.in_the_clear import crosses_in_the_clear
from chassis.settings import TokenReaderSettings

SLACK_URL: Final = "https://slack.com/api/"
STAND_IN_URL: Final = "http://127.0.0.1:28105/api/"
# The stand-in accepts any token of the right form; Slack does not accept this one.
STAND_IN_TOKEN: Final = "xoxb-stand-in"  # noqa: S105


class NotificationSettings(TokenReaderSettings):
    """The settings of the notification service, read from NOTIFICATION_…."""

    model_config = SettingsConfigDict(env_prefix="NOTIFICATION_")

    http_port: int = Field(
        default=28_104, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )

    slack_token: SecretStr | None = Field(
        default=None,
        validate_default=True,
        description="a bot's token (chat:write, channels:read, channels:history); without it, in"
        " development only, messages go to the stand-in",
    )
    slack_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="address of Slack's Web API; by default Slack if a token is set, else the"
        " stand-in",
    )
    slack_proxy: str | None = Field(
        default=None,
        pattern=r"^http://",
        description="HTTP proxy through which Slack is reached, such as http://proxy:3128;"
        " HTTPS_PROXY and the like are not used",
    )
    slack_channel: str = Field(
        default="growth",
        pattern=r"^[\w-]{1,80}$",
        description="channel of the growth rules: its name without #, or its id",
    )
    delivery_concurrency: int = Field(
        default=4, gt=0, le=100, description="deliveries sent at once, at most"
    )
    delivery_timeout_s: float = Field(
        default=10.0, gt=0, le=30, description="longest wait for an answer from Slack"
    )
    delivery_lease_s: float = Field(
        default=15.0,
        gt=0,
        le=600,
        description="time after which another worker may claim an unfinished delivery",
    )
    delivery_settle_s: float = Field(
        default=3.0,
        ge=0,
        le=60,
        description="time after which Slack shows every posted message in its history",
    )
    delivery_longest_retry_s: float = Field(
        default=60.0, gt=0, le=86_400, description="longest wait between two attempts"
    )
    delivery_retention_days: float = Field(
        default=90.0,
        gt=0,
        le=36_500,
        description="time after which a delivery that was sent or has failed is deleted; one that"
        " has failed can be retried until then",
    )

    http_max_connections: int = Field(
        default=2_000,
        gt=0,
        le=30_000,
        description="most connections of clients at once; each stream is one",
    )
    streams: int = Field(
        default=1_000, gt=0, le=30_000, description="most streams of events open at once"
    )
    streams_per_user: int = Field(
        default=10, gt=0, le=1_000, description="most of them of one user"
    )
    stream_heartbeat_s: float = Field(
        default=10.0, gt=0, le=15, description="longest silence of a stream; then it has a comment"
    )
    stream_send_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="longest wait for the client of a stream to receive what was sent; then the"
        " stream is cut off",
    )
    stream_retention_h: float = Field(
        default=48.0,
        ge=24,
        le=8_760,
        description="time for which a client can go on where its stream ended; older events of"
        " streams are deleted",
    )

    @field_validator("slack_token")
    @classmethod
    def _is_there_in_production(
        cls, value: SecretStr | None, info: ValidationInfo
    ) -> SecretStr | None:
        if value is None and info.data.get("environment") == "production":
            raise ValueError("is not set; only in development the stand-in replaces Slack")
        return value

    @field_validator("delivery_lease_s")
    @classmethod
    def _outlasts_a_call(cls, value: float, info: ValidationInfo) -> float:
        if value <= info.data.get("delivery_timeout_s", 0):
            raise ValueError("must be greater than the time-out of a call")
        return value

    def in_the_clear(self) -> Iterator[tuple[str, str]]:
        yield from super().in_the_clear()
        if crosses_in_the_clear(self.slack[1]):
            yield "slack_base_url", "must begin with https://"

    @property
    def slack(self) -> tuple[str, str]:
        """Return the token to use, and where."""
        if self.slack_token is None:
            return STAND_IN_TOKEN, self.slack_base_url or STAND_IN_URL
        return self.slack_token.get_secret_value(), self.slack_base_url or SLACK_URL
