"""Refuses requests that a web page elsewhere has a browser send, for what needs no sign-in."""

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from fastapi import Request

from chassis.domain import DomainError, Kind


class ForeignHost(DomainError):
    """The request's Host is another: a name that somebody had lead here (DNS rebinding)."""

    kind, code = Kind.FORBIDDEN, "foreign-host"


class ForeignOrigin(DomainError):
    """A page of another origin sent the request."""

    kind, code = Kind.FORBIDDEN, "foreign-origin"


def only_at(hosts: Collection[str]) -> Callable[[Request], None]:
    """Return a dependency that takes only requests to these hosts, and none of another's page.

    :param hosts: names and addresses in lower case, without a port
    """

    def check(request: Request) -> None:
        host = request.headers.get("host", "")
        if _name_of(host) not in hosts:
            raise ForeignHost("this is not served under that Host")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() != f"{request.url.scheme}://{host}".lower():
            raise ForeignOrigin("a page of another origin may not send this")

    return check


def _name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
