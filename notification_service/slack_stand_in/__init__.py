"""A stand-in for Slack on the same machine: its Web API, a page of the messages, and faults."""
