"""What the users service can do, one use case a file."""
