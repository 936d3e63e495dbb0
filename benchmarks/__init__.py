"""What the system's speed is, measured."""
