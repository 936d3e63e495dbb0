"""What the audit service can be told from its environment."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings


class AuditSettings(ServiceSettings):
    """The settings that all services share, as ``AUDIT_…``."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_")

    http_port: int = Field(
        default=8103, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )
