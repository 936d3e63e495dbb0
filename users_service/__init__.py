"""The users service: people, their passwords and tokens, and their tasks."""
