"""Notices that a client has gone, and stops work for it that has not begun."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.types import Receive

from chassis.domain import DomainError, Kind

T = TypeVar("T")


class ClientGone(DomainError):
    """The client closed its connection; it gets no answer."""

    kind, code = Kind.UNAVAILABLE, "client-gone"


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of ``work``, which is cancelled when the client disconnects before it.

    Called after the request's body has been read.

    :raises ClientGone: the client has disconnected
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone("the client has closed its connection")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.wait({working, gone})


async def disconnected(receive: Receive) -> None:
    """Wait until the client, whose body is complete, has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
