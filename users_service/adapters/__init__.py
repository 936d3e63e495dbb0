"""The ports implemented: with PostgreSQL, Argon2 and key files, and in memory for tests."""
