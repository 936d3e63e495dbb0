"""The settings of the verification, read from its environment."""

from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chassis.kafka.client import KafkaSecurity
from chassis.settings import DatabaseUrl, KafkaSettings
from services import WITH_DATABASE, DeclaredService
from services.settings import one_for_each
from verification.addresses import Addresses


def _database_of(service: DeclaredService) -> dict[str, Any]:
    return {"description": f"the {service.name} service's database"}


@one_for_each(WITH_DATABASE, "_database_url", DatabaseUrl, _database_of)
class VerifySettings(KafkaSettings):
    """The addresses to read from, as ``VERIFY_…``. Read-only logins are enough."""

    model_config = SettingsConfigDict(env_prefix="VERIFY_")

    slack_stand_in_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="the stand-in for Slack; without it no messages are compared",
    )

    def addresses(self) -> Addresses:
        """Return the addresses in the form that ``verify`` takes."""
        return Addresses(
            databases={each.name: self._database_url_of(each) for each in WITH_DATABASE},
            kafka_bootstrap=self.kafka_bootstrap,
            kafka_security=KafkaSecurity.of(self),
            slack_stand_in_url=self.slack_stand_in_url,
        )

    def _database_url_of(self, service: DeclaredService) -> str:
        url: SecretStr = getattr(self, f"{service.identifier}_database_url")
        return url.get_secret_value()
