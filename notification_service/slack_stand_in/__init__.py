"""A stand-in for Slack on one's own machine: its Web API, a page of what was said, and faults."""
