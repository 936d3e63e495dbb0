"""``python -m SERVICE healthy``: asks the running process whether it is ready.

For the health checks of an orchestrator, which may come every second: it imports the standard
library and nothing of the service. So ``__main__`` calls it before its own imports.
"""

import json
import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final

from services import service_named

# Longer than the checks of a process, which are given up after 2 s.
_ANSWER_WITHIN_S: Final = 4.0
# Where a process that listens on every address can be reached.
_LOOPBACK: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def exit_if_asked(name: str) -> None:
    """If the command is ``healthy``, print one line and exit.

    The address is that of the service's settings.

    :raises SystemExit: 0 when it is ready, 1 when it is not or does not answer
    """
    if sys.argv[1:] != ["healthy"]:
        return
    ready, line = ask(name)
    sys.stdout.write(f"{line}\n")
    sys.exit(0 if ready else 1)


def ask(name: str) -> tuple[bool, str]:
    """Return whether the process of a service is ready, and a line that says so or why not."""
    service = service_named(name)
    listener, default = service.health_listener
    host = os.environ.get(f"{service.prefix}{listener}_HOST", "127.0.0.1")
    port = os.environ.get(f"{service.prefix}{listener}_PORT") or str(default)
    host = _LOOPBACK.get(host, host)
    encrypted = os.environ.get(f"{service.prefix}HTTP_CERTIFICATE_FILE")
    try:
        connection = _connect(host, int(port), encrypted=bool(encrypted))
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        return False, f"{name} does not answer on {host}:{port}: {type(error).__name__}"
    if answer.status == 200:
        return True, f"{name} is ready"
    reasons = "; ".join(f"{each['field']}: {each['message']}" for each in said.get("errors", ()))
    return False, f"{name} is not ready: {reasons or answer.status}"


def _connect(host: str, port: int, *, encrypted: bool) -> HTTPConnection:
    if not encrypted:
        return HTTPConnection(host, port, timeout=_ANSWER_WITHIN_S)
    # It is asked by an address that its certificate need not have, and told nothing secret.
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, port, timeout=_ANSWER_WITHIN_S, context=unverified)
