"""A service with no tables beside those that every service has."""
