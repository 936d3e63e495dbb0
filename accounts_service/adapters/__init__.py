"""How it is kept: in PostgreSQL, and in memory for tests."""
