"""Real Kafka, real PostgreSQL and the services on one machine that has nothing installed."""
