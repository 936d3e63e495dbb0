"""The settings of the accounts service."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from accounts_service.adapters.currencies import CURRENCIES
from chassis.settings import TokenReaderSettings


def _known(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("no code of ISO 4217 for a currency with a minor unit, such as USD")
    return code


class AccountsSettings(TokenReaderSettings):
    """The settings of the accounts service, from ``ACCOUNTS_…``."""

    model_config = SettingsConfigDict(env_prefix="ACCOUNTS_")

    http_port: int = Field(
        default=28_102, ge=0, le=65_535, description="port of HTTP; 0 takes a free one"
    )
    currency: Annotated[str, AfterValidator(_known)] = Field(
        default="USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code of new accounts"
    )
