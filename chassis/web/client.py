"""The HTTP client for what is ours: other services, and the processes of the local cluster."""

from typing import Any

import httpx


def direct_client(**options: Any) -> httpx.AsyncClient:
    """Return a client that connects directly, whatever the environment says.

    ``HTTP_PROXY``, ``ALL_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE`` and ``~/.netrc`` are for what is
    outside: a proxy does not reach what is on this machine, and a file that is gone would keep the
    client from being made.

    :param options: those of ``httpx.AsyncClient``
    """
    return httpx.AsyncClient(trust_env=False, **options)


class DirectTransport(httpx.AsyncHTTPTransport):
    """The transport of such a client, to be subclassed."""

    def __init__(self) -> None:
        super().__init__(trust_env=False)
