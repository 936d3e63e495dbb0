"""Reads a request's body."""

from starlette.requests import ClientDisconnect
from starlette.types import Receive


async def whole_body(receive: Receive) -> bytes:
    """Return the body once it is complete. The server bounds its time, the app its size.

    :raises ClientDisconnect: the client disconnected before
    :raises HTTPException: with 413, it is too large
    """
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
