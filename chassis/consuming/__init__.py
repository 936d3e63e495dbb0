"""How events are consumed: in chunks, each with its effects and its offset in one transaction."""
