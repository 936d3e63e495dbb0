"""The settings of the audit service."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import TokenReaderSettings


class AuditSettings(TokenReaderSettings):
    """The settings that all services share, as ``AUDIT_…``."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_")

    http_port: int = Field(
        default=28_103, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )
