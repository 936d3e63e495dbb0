"""What the services say to one another and to everyone else: events, envelope and topics."""

__version__ = "0.1.0"
