"""The service's schema, revision by revision."""

from accounts_service.adapters.tables import metadata

__all__ = ["metadata"]
