"""The use cases of the users service, one in each file, and the ports they need."""
