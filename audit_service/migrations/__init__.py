"""The schema's revisions, and the tables that they lead to."""

from audit_service.tables import metadata

__all__ = ["metadata"]
