"""What the delivery worker needs of a chat, and how a chat may refuse.

ChatError
├── RateLimited      not posted; come again after so many seconds
├── Unreachable      not posted; nobody was there
├── Refused          not posted; and it won't be, as things are
└── OutcomeUnknown   posted or not, the answer does not tell
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class ChatError(Exception):
    """A call that did not succeed. ``code`` says why, in the other side's word if it has one."""

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
    """A text for a channel, marked so that it can be found again."""

    channel: str
    text: str
    delivery_id: UUID
    correlation_id: str


class Chat(Protocol):
    async def post(self, message: Message) -> str:
        """Post a message and return the chat's id of it.

        :raises ChatError: one of its subclasses, which say whether it can have been posted
        """

    async def find(self, channel: str, delivery_id: UUID, *, since: datetime) -> str | None:
        """Return the id of the message of this delivery, if one was posted after ``since``.

        :raises ChatError: the chat can't be asked now
        """
