"""A user's own routes: the stream of their events, and the cookie by which a browser opens it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query, Response

from chassis.web.auth import LEEWAY_S, Principal, bearer_token
from chassis.web.event_stream import EventStream, StreamBounds
from notification_service.streams import Streams

_PATH: Final = "/me/stream"
# A page asks for it, and opens the stream at once.
_COOKIE_S: Final = 60


def cookie_name(*, secure: bool) -> str:
    """Return the name of the cookie that has the token of an EventSource.

    Browsers take one with the prefix over HTTPS only (RFC 6265bis, 4.1.3).
    """
    return "__Secure-stream-token" if secure else "stream-token"


SignedIn = Callable[..., Awaitable[Principal]]

_LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="What an EventSource sends by itself.")
]
_LastEventIdInQuery = Annotated[
    str | None,
    Query(alias="last_event_id", description="The id of the last event that was received."),
]
_DESCRIPTION: Final = """Your own transactions and account events, from now on or behind an id.

Each event has an `id`. One without a type (a browser's `message`) is JSON: `type` and `time` of
what happened, and its fields. The first is `begin`, or `read-again`, which may come later too: then
something was missed, so read your account again. A comment comes at the latest every 15 s. An
EventSource can't send `Authorization`: it is authenticated by `POST /me/stream/cookie`.
"""


def stream_routes(
    streams: Streams,
    bounds: StreamBounds,
    now: Callable[[], datetime],
    *,
    signed_in: SignedIn,
    signed_in_by_cookie: SignedIn,
    stopping: asyncio.Event,
    secure: bool,
) -> APIRouter:
    """Return the routes.

    :param signed_in_by_cookie: takes the token from the cookie of ``cookie_name`` too
    :param stopping: ends all streams
    :param secure: the cookie is sent over HTTPS only
    """
    router = APIRouter(tags=["stream"])

    @router.get(
        _PATH,
        summary="The stream of your events",
        description=_DESCRIPTION,
        response_class=EventStream,
        status_code=200,
    )
    async def get_stream(
        caller: Annotated[Principal, Depends(signed_in_by_cookie)],
        last_event_id: _LastEventId = None,
        last_event_id_in_query: _LastEventIdInQuery = None,
    ) -> Response:
        def ends_in_s() -> float | None:
            if caller.valid_until is None:
                return None
            return max(0.0, (caller.valid_until - now()).total_seconds() + LEEWAY_S)

        # A browser that comes back by itself sends the newer one in the header.
        opened = streams.open(caller.id, last_event_id or last_event_id_in_query)
        return EventStream(opened, bounds, ends_in_s=ends_in_s, stopping=stopping)

    @router.post(
        f"{_PATH}/cookie",
        summary="A cookie for an EventSource",
        description="It has your access token, for this path and for a minute: open the stream.",
        status_code=204,
    )
    async def post_stream_cookie(
        _caller: Annotated[Principal, Depends(signed_in)],
        token: Annotated[str, Depends(bearer_token)],
        response: Response,
    ) -> None:
        response.set_cookie(
            cookie_name(secure=secure),
            token,
            max_age=_COOKIE_S,
            path=_PATH,
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    return router
