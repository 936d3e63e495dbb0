"""The public contracts of the services: events, envelope and topics."""

__version__ = "0.1.0"
