"""The ports implemented: with PostgreSQL, and in memory for tests."""
