"""No revisions of its own."""
