"""The part of Slack's Web API that the service uses (docs.slack.dev, "Web API methods")."""

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from notification_service.slack_stand_in.faults import FaultKind, Faults
from notification_service.slack_stand_in.messages import Messages, Posted

_LONGEST_TEXT: Final = 40_000
_LARGEST_PAGE: Final = 999
_NO_ANSWER_S: Final = 120.0
_TEAM: Final = "T00000001"
_BOT: Final = "B00000001"

Arguments = Mapping[str, Any]


class SlackError(Exception):
    """A call that Slack answers with ``ok: false`` and this code."""


class WebApi:
    """The methods, on the stored messages and the channels."""

    def __init__(self, messages: Messages, channels: list[str]) -> None:
        self._messages = messages
        self._ids = {name: f"C{number:08d}" for number, name in enumerate(channels, start=1)}
        self._names = {id_: name for name, id_ in self._ids.items()}
        self._methods: Mapping[str, Callable[[Arguments], dict[str, Any]]] = {
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "conversations.history": self._history,
            "conversations.list": self._list,
        }

    def call(self, method: str, arguments: Arguments) -> dict[str, Any]:
        """Return the answer to a call.

        :raises SlackError: with Slack's code for the error
        """
        if method not in self._methods:
            raise SlackError("unknown_method")
        token = str(arguments.get("token") or "")
        if not token:
            raise SlackError("not_authed")
        if not token.startswith("xox"):
            raise SlackError("invalid_auth")
        return {"ok": True, **self._methods[method](arguments)}

    def _auth_test(self, _arguments: Arguments) -> dict[str, Any]:
        return {"team": "Stand-in", "team_id": _TEAM, "user": "bot", "bot_id": _BOT}

    def _post_message(self, arguments: Arguments) -> dict[str, Any]:
        given = str(arguments.get("channel") or "").removeprefix("#")
        name = self._names.get(given, given)
        if name not in self._ids:
            raise SlackError("channel_not_found")
        text = str(arguments.get("text") or "")
        if not text:
            raise SlackError("no_text")
        if len(text) > _LONGEST_TEXT:
            raise SlackError("msg_too_long")
        posted = self._messages.add(name, text, _metadata(arguments.get("metadata")))
        return {"channel": self._ids[name], "ts": posted.ts, "message": _shown(posted)}

    def _history(self, arguments: Arguments) -> dict[str, Any]:
        # Unlike a post, this method takes only the channel's id.
        name = self._names.get(str(arguments.get("channel")))
        if name is None:
            raise SlackError("channel_not_found")
        oldest = _ts(arguments, "oldest", "0")
        latest = _ts(arguments, "latest", "Infinity")
        inclusive = _flag(arguments, "inclusive")
        limit = _limit(arguments)
        before = _from_cursor(arguments)
        page: list[Posted] = []
        more = False
        for each in self._messages.newest_first():
            ts = Decimal(each.ts)
            if ts < oldest:
                break
            if each.channel != name or ts > before:
                continue
            if not (oldest < ts < latest or (inclusive and ts in (oldest, latest))):
                continue
            if len(page) == limit:
                more = True
                break
            page.append(each)
        answer: dict[str, Any] = {
            "messages": [
                _shown(p, metadata=_flag(arguments, "include_all_metadata")) for p in page
            ],
            "has_more": more,
        }
        if more:
            answer["response_metadata"] = {"next_cursor": _to_cursor(page[-1])}
        return answer

    def _list(self, _arguments: Arguments) -> dict[str, Any]:
        channels = [
            {"id": id_, "name": name, "is_channel": True, "is_archived": False}
            for name, id_ in self._ids.items()
        ]
        return {"channels": channels, "response_metadata": {"next_cursor": ""}}


def routes(api: WebApi, faults: Faults) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/api/{method}")
    @router.post("/api/{method}")
    async def call(method: str, request: Request) -> Response:
        try:
            arguments = await _arguments(request)
            fault = faults.take(method, arguments.get("text", ""))
            match fault.kind if fault else None:
                case FaultKind.RATE_LIMITED:
                    assert fault is not None  # noqa: S101 - follows from its kind
                    retry_after = {"Retry-After": str(fault.retry_after_s)}
                    return JSONResponse({"ok": False, "error": "ratelimited"}, 429, retry_after)
                case FaultKind.SERVER_ERROR:
                    return PlainTextResponse("Internal Server Error", 500)
                case FaultKind.CHANNEL_NOT_FOUND | FaultKind.TOKEN_REVOKED as code:
                    return JSONResponse({"ok": False, "error": code})
                case FaultKind.TIMEOUT_AFTER_POST:
                    api.call(method, arguments)
                    await _gone(request)
                    return PlainTextResponse("the client has given up", 504)
                case None:
                    return JSONResponse(api.call(method, arguments))
        except SlackError as error:
            return JSONResponse({"ok": False, "error": str(error)})

    return router


async def _arguments(request: Request) -> Arguments:
    """Return a call's arguments, from query, form, JSON and header, as Slack accepts them."""
    arguments: dict[str, Any] = dict(request.query_params)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type == "application/json":
        try:
            body = await request.json()
        except ValueError:
            raise SlackError("invalid_json") from None
        if not isinstance(body, dict):
            raise SlackError("json_not_object")
        arguments |= body
    else:
        arguments |= await request.form()
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        arguments["token"] = token.strip()
    return arguments


async def _gone(request: Request) -> None:
    """Return when the client has given up: after the body only its disconnect can be received."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_NO_ANSWER_S):
            await request.receive()


def _shown(posted: Posted, *, metadata: bool = True) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "type": "message",
        "ts": posted.ts,
        "text": posted.text,
        "bot_id": _BOT,
        "team": _TEAM,
    }
    if metadata and posted.metadata is not None:
        shown["metadata"] = posted.metadata
    return shown


def _metadata(given: object) -> dict[str, Any] | None:
    if given is None or given == "":
        return None
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise SlackError("invalid_metadata_format") from None
    if (
        not isinstance(given, dict)
        or not isinstance(given.get("event_type"), str)
        or not isinstance(given.get("event_payload"), dict)
    ):
        raise SlackError("invalid_metadata_schema")
    return {"event_type": given["event_type"], "event_payload": given["event_payload"]}


def _flag(arguments: Arguments, name: str) -> bool:
    return str(arguments.get(name, "")).lower() in ("1", "true")


def _ts(arguments: Arguments, name: str, default: str) -> Decimal:
    try:
        return Decimal(str(arguments.get(name) or default))
    except InvalidOperation:
        raise SlackError(f"invalid_ts_{name}") from None


def _limit(arguments: Arguments) -> int:
    limit = str(arguments.get("limit") or "100")
    if not limit.isdecimal() or not 1 <= int(limit) <= _LARGEST_PAGE:
        raise SlackError("invalid_limit")
    return int(limit)


def _to_cursor(last: Posted) -> str:
    before = Decimal(last.ts) - Decimal("0.000001")
    return base64.b64encode(f"next_ts:{before}".encode()).decode()


def _from_cursor(arguments: Arguments) -> Decimal:
    """Return the newest ``ts`` of the requested page."""
    cursor = str(arguments.get("cursor") or "")
    if not cursor:
        return Decimal("Infinity")
    try:
        return Decimal(base64.b64decode(cursor, validate=True).decode().removeprefix("next_ts:"))
    except (binascii.Error, UnicodeDecodeError, InvalidOperation):
        raise SlackError("invalid_cursor") from None
