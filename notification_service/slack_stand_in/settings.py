"""The settings of the stand-in for Slack."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import ProcessSettings


class StandInSettings(ProcessSettings):
    """The settings of the stand-in, read from SLACK_STAND_IN_…."""

    model_config = SettingsConfigDict(env_prefix="SLACK_STAND_IN_")

    http_port: int = Field(
        default=28_105, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )
    hosts: str = Field(
        default="127.0.0.1,localhost,::1",
        description="names and addresses under which it is asked (the Host of a request, without"
        " its port), comma separated",
    )
    channels: str = Field(
        default="growth",
        pattern=r"^[a-z0-9_-]{1,80}(,[a-z0-9_-]{1,80})*$",
        description="names of its channels, comma separated",
    )
    directory: Path | None = Field(
        default=None,
        description="directory that keeps the messages over restarts; without it they are lost",
    )
