"""What can stand in the way of a cluster, each said in one line."""


class ClusterError(Exception):
    """The cluster can't do what was asked; the message says why and what to do."""


class PortTaken(ClusterError):
    """Someone else listens where one of our processes has to."""
