"""A service as a process: its command line, its parts, their wiring, and an orderly stop."""
