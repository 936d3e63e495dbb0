"""How a service keeps its state in PostgreSQL: one unit of work, and the outbox beside it."""
