"""The schema of the notification service, revision by revision."""

from notification_service.tables import metadata

__all__ = ["metadata"]
