"""The notification service: sends messages about events to people outside the product."""
