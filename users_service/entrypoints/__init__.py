"""How the service is reached: over HTTP, by events, from the command line."""
