"""The settings of the accounts service."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.settings import TokenReaderSettings


class AccountsSettings(TokenReaderSettings):
    """The settings of the accounts service, from ``ACCOUNTS_…``."""

    model_config = SettingsConfigDict(env_prefix="ACCOUNTS_")

    http_port: int = Field(
        default=28_102, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )
    currency: str = Field(
        default="USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code of new accounts"
    )
