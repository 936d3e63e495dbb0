"""The operators' commands, which work where HTTP does not."""
