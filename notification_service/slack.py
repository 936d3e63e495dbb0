"""Slack as a chat, through slack_sdk."""

import asyncio
import logging
import re
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from aiohttp import ClientConnectorError, ClientSession, TCPConnector
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from notification_service.chat import (
    ChatError,
    Message,
    OutcomeUnknown,
    RateLimited,
    Refused,
    Unreachable,
)

_METADATA: Final = "notification_delivery"
# Shorter than servers keep an idle connection: a post on one that was just closed would have to be
# looked for.
_KEEPALIVE_S: Final = 3.0
_PAGE: Final = 200  # Slack recommends no more at a time
_CHANNEL_ID: Final = re.compile(r"[CGD][A-Z0-9]{7,}")

# Slack says of these that the call, or a part of it, may have succeeded all the same
# (docs.slack.dev, "Common errors").
_PERHAPS_DONE: Final = {"fatal_error", "internal_error", "request_timeout", "service_unavailable"}
_RATE_LIMITED: Final = {"ratelimited", "rate_limited"}
_DEFAULT_RETRY_AFTER_S: Final = 1.0

T = TypeVar("T")

# At DEBUG slack_sdk writes whole messages, and they name people.
_quiet: Final = logging.getLogger("notification_service.slack_sdk")
_quiet.setLevel(logging.WARNING)


class SlackChat:
    """A workspace of Slack, or what speaks its Web API at ``base_url``.

    To be made where an event loop runs, and closed in the end.

    :param timeout_s: for a post, and for a look through the history as a whole
    """

    def __init__(self, token: str, base_url: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # Its own retries would post again what may have been posted: whether to is not its call.
        self._session = ClientSession(connector=TCPConnector(keepalive_timeout=_KEEPALIVE_S))
        self._client = AsyncWebClient(
            token, base_url, session=self._session, logger=_quiet, retry_handlers=[]
        )
        if not base_url.startswith("https:"):
            # What is spoken to in the clear is near, and not behind the proxy to the internet.
            self._client.proxy = None
        self._channel_ids: dict[str, str] = {}

    async def aclose(self) -> None:
        await self._session.close()

    async def post(self, message: Message) -> str:
        posted = await self._call(
            self._client.chat_postMessage(
                channel=message.channel,
                text=_escaped(message.text),
                mrkdwn=False,
                unfurl_links=False,
                unfurl_media=False,
                metadata={
                    "event_type": _METADATA,
                    "event_payload": {
                        "delivery_id": str(message.delivery_id),
                        "correlation_id": message.correlation_id,
                    },
                },
            ),
        )
        return str(posted["ts"])

    async def find(self, channel: str, delivery_id: UUID, *, since: datetime) -> str | None:
        return await self._call(self._find(channel, str(delivery_id), f"{since.timestamp():.6f}"))

    async def _find(self, channel: str, delivery_id: str, oldest: str) -> str | None:
        channel_id = await self._channel_id(channel)
        cursor: str | None = None
        while cursor != "":
            page = await self._client.conversations_history(
                channel=channel_id,
                oldest=oldest,
                limit=_PAGE,
                cursor=cursor,
                include_all_metadata=True,
            )
            for message in page["messages"]:
                payload = (message.get("metadata") or {}).get("event_payload") or {}
                if payload.get("delivery_id") == delivery_id:
                    return str(message["ts"])
            cursor = _next_cursor(page)
        return None

    async def _channel_id(self, channel: str) -> str:
        """Return the id of a channel: the history wants it, where a post takes a name as well."""
        if _CHANNEL_ID.fullmatch(channel):
            return channel
        cursor: str | None = None
        while channel not in self._channel_ids:
            if cursor == "":
                raise Refused("channel_not_found")
            page = await self._client.conversations_list(
                limit=_PAGE,
                cursor=cursor,
                exclude_archived=True,
                types="public_channel,private_channel",
            )
            self._channel_ids |= {each["name"]: each["id"] for each in page["channels"]}
            cursor = _next_cursor(page)
        return self._channel_ids[channel]

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except ChatError:
            raise
        except SlackApiError as error:
            raise _chat_error(error.response) from error
        except ClientConnectorError as error:
            raise Unreachable("unreachable") from error
        except TimeoutError as error:
            raise OutcomeUnknown("timeout") from error
        except Exception as error:  # an answer cut off, or not in Slack's form
            raise OutcomeUnknown(type(error).__name__) from error


def _escaped(text: str) -> str:
    """Have Slack show every character as it is (docs.slack.dev, "Formatting message text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _next_cursor(page: Any) -> str:
    return (page.get("response_metadata") or {}).get("next_cursor") or ""


def _chat_error(response: Any) -> ChatError:
    """Tell from Slack's answer whether the message can have been posted."""
    # Where the body is no JSON, slack_sdk hands over aiohttp's own answer.
    status = getattr(response, "status_code", None) or getattr(response, "status", None)
    body = getattr(response, "data", None)
    code = str(body.get("error") or "") if isinstance(body, dict) else ""
    if status == 429 or code in _RATE_LIMITED:
        return RateLimited(_retry_after_s(response.headers))
    if status == 200 and code and code not in _PERHAPS_DONE:
        return Refused(code)
    return OutcomeUnknown(code or f"http_{status}")


def _retry_after_s(headers: Any) -> float:
    said = str(headers.get("Retry-After", ""))
    return float(said) if said.isdecimal() else _DEFAULT_RETRY_AFTER_S
