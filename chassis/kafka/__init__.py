"""Kafka as a service meets it: how to connect, its topics, its groups, its partitions."""
