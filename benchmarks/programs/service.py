"""A service's own process, on topics and in a consumer group of its own.

``python -m benchmarks.programs.service audit log-1. bench-2`` consumes ``log-1.users.user`` and so
on in the group ``bench-2``; everything else is as in ``python -m audit_service``.
"""

import sys
from dataclasses import replace
from importlib import import_module

from contracts.topics import TOPICS

if __name__ == "__main__":
    service, prefix, group = sys.argv[1:]
    for topic in TOPICS:
        object.__setattr__(topic, "name", f"{prefix}{topic.name}")
    bootstrap = vars(import_module(f"{service}_service.bootstrap"))
    bootstrap["SERVICE"] = replace(bootstrap["SERVICE"], name=group)
    import_module(f"{service}_service.__main__").cli(args=[])
