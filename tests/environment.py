"""The environment of a test run: what its caller's says of proxies is not for loopback."""

import os
from collections.abc import MutableMapping
from pathlib import Path

from local_cluster.environment import forget_settings_of_libraries

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def reach_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """Let the tests' own clients reach what they start, and downloads still go by the proxy."""
    for name in list(environment):
        # httpx, which the tests use, can't even be told not to use one.
        if name.lower() in _PROXIES and environment[name].startswith("socks"):
            del environment[name]
    environment["NO_PROXY"] = environment["no_proxy"] = "127.0.0.1,localhost"
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if name in environment and not Path(environment[name]).exists():
            del environment[name]


reach_loopback_directly(os.environ)
forget_settings_of_libraries()
