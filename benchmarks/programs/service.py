"""A service's own process, on topics and in a consumer group that nobody else has.

``python -m benchmarks.programs.service audit log-1. bench-2`` consumes ``log-1.users.user`` and so
on in the group ``bench-2``; all else is as in ``python -m audit_service``.
"""

import sys
from importlib import import_module

from contracts.topics import TOPICS

if __name__ == "__main__":
    service, prefix, group = sys.argv[1:]
    for topic in TOPICS:
        object.__setattr__(topic, "name", f"{prefix}{topic.name}")
    vars(import_module(f"{service}_service.bootstrap"))["_SERVICE"] = group
    import_module(f"{service}_service.__main__").cli(args=[])
