"""The HTTP side of a service: its app, who asks, how it refuses, and whether it is ready."""
