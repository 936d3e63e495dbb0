"""The use cases of the accounts service, one in each file, and the ports they need."""
