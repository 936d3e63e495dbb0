"""The audit service: every event of every topic, kept as it came."""
