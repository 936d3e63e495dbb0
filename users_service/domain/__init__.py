"""What a user and a task are, and which rules hold for them."""
