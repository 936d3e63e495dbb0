"""The settings of the verification, read from its environment."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chassis.kafka.client import KafkaSecurity
from chassis.settings import DatabaseUrl, KafkaSettings
from verification.addresses import Addresses


class VerifySettings(KafkaSettings):
    """The addresses to read from, as ``VERIFY_…``. Read-only logins are enough."""

    model_config = SettingsConfigDict(env_prefix="VERIFY_")

    users_database_url: DatabaseUrl = Field(description="the users service's database")
    accounts_database_url: DatabaseUrl = Field(description="the accounts service's database")
    audit_database_url: DatabaseUrl = Field(description="the audit service's database")
    notification_database_url: DatabaseUrl = Field(
        description="the notification service's database"
    )
    slack_stand_in_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="the stand-in for Slack; without it no messages are compared",
    )

    def addresses(self) -> Addresses:
        """Return the addresses in the form that ``verify`` takes."""
        return Addresses(
            databases={
                "users": self.users_database_url.get_secret_value(),
                "accounts": self.accounts_database_url.get_secret_value(),
                "audit": self.audit_database_url.get_secret_value(),
                "notification": self.notification_database_url.get_secret_value(),
            },
            kafka_bootstrap=self.kafka_bootstrap,
            kafka_security=KafkaSecurity.of(self),
            slack_stand_in_url=self.slack_stand_in_url,
        )
