"""The users service: users, their passwords and tokens, and their tasks."""
