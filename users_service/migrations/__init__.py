"""Where the service's schema is, for Alembic."""

from users_service.adapters.tables import metadata

__all__ = ["metadata"]
