"""The audit service: every event of every topic, byte for byte."""
