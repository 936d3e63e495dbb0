"""The accounts service on a real PostgreSQL."""
