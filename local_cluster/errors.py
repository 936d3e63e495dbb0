"""The errors of a cluster; each has a message of one line."""


class ClusterError(Exception):
    """The cluster can't do what was asked; the message has the reason and what to do."""


class PortTaken(ClusterError):
    """Another program listens on a port of one of our processes."""
