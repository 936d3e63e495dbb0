"""What crosses a network unprotected: nothing does that stays on this machine."""

import ipaddress
import os
import re
from urllib.parse import parse_qs, urlsplit

_AROUND_SERVERS = re.compile(r"(\w+://(?:[^/?#]*@)?)([^/?#@]*)(.*)", re.DOTALL)


def is_on_this_machine(host: str | None) -> bool:
    """Tell whether an address is one of the loopback, or none (as of a Unix socket)."""
    if not host or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def are_on_this_machine(servers: str) -> bool:
    """Tell whether all of these are: host:port, comma separated."""
    return all(is_on_this_machine(urlsplit(f"//{each}").hostname) for each in servers.split(","))


def crosses_in_the_clear(url: str) -> bool:
    """Tell whether requests to this URL cross a network without TLS."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_on_this_machine(parts.hostname)


def around_servers(database_url: str) -> tuple[str, str, str]:
    """Return what a database's URL has before its servers, the servers, and what it has after them.

    Not by ``urlsplit``: in newer Pythons, and in Debian's 3.11.2, it refuses several servers of
    which one after the first is an IPv6 address.
    """
    found = _AROUND_SERVERS.fullmatch(database_url)
    return (found[1], found[2], found[3]) if found else (database_url, "", "")


def is_unverified(database_url: str) -> bool:
    """Tell whether connections to PostgreSQL cross a network without a verified certificate."""
    _, servers, rest = around_servers(database_url)
    query = parse_qs(rest.partition("?")[2].partition("#")[0])
    if query.get("sslmode", [""])[-1] == "verify-full":
        return False
    # Without a host the client takes that of the query, or of the environment.
    named = [servers, *query.get("host", ()), *query.get("hostaddr", ())]
    if not servers:
        named.append(os.environ.get("PGHOST", ""))
    return not all(each.startswith("/") or are_on_this_machine(each) for each in named)
