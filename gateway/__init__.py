"""The gateway: the one public HTTP server, which forwards requests to the services."""
