"""The header fields that every answer has, so that a browser does no more with it than is meant."""

import base64
import hashlib
import re
from typing import Final

from starlette.datastructures import MutableHeaders

# An answer is data and loads nothing. A page brings a policy of its own.
_DATA_ONLY: Final = "default-src 'none'; frame-ancestors 'none'"
_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def add_security_headers(headers: MutableHeaders) -> None:
    """Add the fields that are not there.

    Most answers are about persons, so no cache keeps one unless its route says so. With an ``ETag``
    the client itself may, and asks each time whether it is still right (RFC 9111, 5.2.2).
    """
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", _DATA_ONLY)
    headers.setdefault("Cache-Control", "private, no-cache" if "etag" in headers else "no-store")


def page_policy(page: str) -> str:
    """Return the policy of Swagger UI's page: its own scripts, its inline one by its hash."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(page)
    )
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    )
