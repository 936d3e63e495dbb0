"""Checks whether anything was lost, from the databases and the topics themselves."""
