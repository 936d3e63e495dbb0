"""How a service keeps its state in PostgreSQL: a unit of work, and the outbox with its events."""
