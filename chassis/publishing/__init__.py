"""Publishes the outbox to Kafka: in order per aggregate, each row until it is acknowledged."""
