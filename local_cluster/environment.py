"""What the processes of a cluster get of their caller's environment: what they must have, no more.

The settings of a service come in addition (``Topology.environment``).
"""

import os
from pathlib import Path
from typing import Final

# FAILPOINTS arms the places at which the fault tests stop a process (chassis/failpoints.py).
_HANDED_ON: Final = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "FAILPOINTS")
# libpq's and OpenTelemetry's, which asyncpg and the SDK read in this process too.
_READ_BY_LIBRARIES: Final = ("PG", "OTEL_")


def inherited(directory: Path) -> dict[str, str]:
    """Return the environment that every process of the cluster in ``directory`` begins with.

    A proxy is not in it, since what they call is on this machine; nor are the variables by which
    PostgreSQL's clients, Python, Java or OpenTelemetry would do something else than usual.
    """
    kept = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    # Of the user's home nothing is meant for them: not ~/.pgpass, not ~/.postgresql. The locale is
    # the one in which Java finds files with names beyond ASCII.
    return kept | {"HOME": str(directory), "LC_ALL": "C.UTF-8"}


def forget_settings_of_libraries() -> None:
    """Remove from this process's environment what libraries would read on our behalf."""
    for name in list(os.environ):
        if name.startswith(_READ_BY_LIBRARIES):
            del os.environ[name]
