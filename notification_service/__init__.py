"""The notification service: tells people, outside of the product, what happened in it."""
