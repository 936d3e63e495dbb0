"""The ways into the service: HTTP routes and event handlers."""
