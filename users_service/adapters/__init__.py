"""How it is done: PostgreSQL, Argon2, key files, and fakes of each for tests."""
