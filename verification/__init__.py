"""Was anything lost? Computed from the databases and the topics themselves."""
