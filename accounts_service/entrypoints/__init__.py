"""How the world reaches the service: events and HTTP."""
