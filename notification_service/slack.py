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
# Shorter than servers keep an idle connection. A post on a connection that was just closed may have
# arrived, and has to be searched for.
_KEEPALIVE_S: Final = 3.0
_PAGE: Final = 200  # the most that Slack recommends
_CHANNEL_ID: Final = re.compile(r"[CGD][A-Z0-9]{7,}")

# With these errors the call may have succeeded, at least in part (docs.slack.dev, "Common errors").
_PERHAPS_POSTED: Final = {"fatal_error", "internal_error", "request_timeout", "service_unavailable"}
_RATE_LIMITED: Final = {"ratelimited", "rate_limited"}
_DEFAULT_RETRY_AFTER_S: Final = 1.0

T = TypeVar("T")

# At DEBUG slack_sdk logs whole messages, which contain personal data.
_quiet: Final = logging.getLogger("notification_service.slack_sdk")
_quiet.setLevel(logging.WARNING)


class SlackChat:
    """A workspace of Slack, or another server with its Web API at ``base_url``.

    It must be created in a running event loop, and closed.

    :param timeout_s: for a post, and for a whole search of the history
    :param proxy: the HTTP proxy through which it is reached; the environment's are not used
    """

    def __init__(
        self, token: str, base_url: str, *, timeout_s: float, proxy: str | None = None
    ) -> None:
        self._timeout_s = timeout_s
        # Without slack_sdk's own retries: they would post a message again that may have arrived.
        self._session = ClientSession(connector=TCPConnector(keepalive_timeout=_KEEPALIVE_S))
        self._client = AsyncWebClient(
            token, base_url, session=self._session, logger=_quiet, retry_handlers=[]
        )
        # Not by an argument: without one slack_sdk takes that of the environment.
        self._client.proxy = proxy
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
        """Return the id of a channel: the history needs it, while a post also takes a name."""
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
        except Exception as error:  # an incomplete answer, or none of Slack's
            raise OutcomeUnknown(type(error).__name__) from error


def _escaped(text: str) -> str:
    """Escape a text, so that Slack shows it unchanged (docs.slack.dev, "Formatting text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _next_cursor(page: Any) -> str:
    return (page.get("response_metadata") or {}).get("next_cursor") or ""


def _chat_error(response: Any) -> ChatError:
    """Return the error that shows whether the message may have been posted."""
    # If the body is no JSON, slack_sdk passes on aiohttp's own response.
    status = getattr(response, "status_code", None) or getattr(response, "status", None)
    body = getattr(response, "data", None)
    code = str(body.get("error") or "") if isinstance(body, dict) else ""
    if status == 429 or code in _RATE_LIMITED:
        return RateLimited(_retry_after_s(response.headers))
    if status == 200 and code and code not in _PERHAPS_POSTED:
        return Refused(code)
    return OutcomeUnknown(code or f"http_{status}")


def _retry_after_s(headers: Any) -> float:
    seconds = str(headers.get("Retry-After", ""))
    return float(seconds) if seconds.isdecimal() else _DEFAULT_RETRY_AFTER_S
