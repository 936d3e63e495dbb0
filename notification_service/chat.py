"""The port to a chat, and the errors that a call of it can raise.

ChatError
├── RateLimited      not posted; allowed again after ``retry_after_s``
├── Unreachable      not posted; no connection was made
├── Refused          not posted; the same call will fail again
└── OutcomeUnknown   perhaps posted; the answer does not show it
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class ChatError(Exception):
    """A call that did not succeed. ``code`` is the chat's own error code if it gave one."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class RateLimited(ChatError):
    def __init__(self, retry_after_s: float) -> None:
        super().__init__("rate_limited")
        self.retry_after_s = retry_after_s


class Unreachable(ChatError):
    pass


class Refused(ChatError):
    pass


class OutcomeUnknown(ChatError):
    pass


@dataclass(frozen=True, slots=True)
class Message:
    """A text for a channel, with ids by which it can be found."""

    channel: str
    text: str
    delivery_id: UUID
    correlation_id: str


class Chat(Protocol):
    async def post(self, message: Message) -> str:
        """Post a message and return its id in the chat.

        :raises ChatError: the subclass shows whether the message may have been posted
        """

    async def find(self, channel: str, delivery_id: UUID, *, since: datetime) -> str | None:
        """Return the id of the message of this delivery, if one was posted after ``since``.

        :raises ChatError: the search failed
        """
