"""What every service stands on: the path of an event, told once."""
