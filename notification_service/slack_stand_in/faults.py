"""Failures of Slack that the stand-in imitates on demand."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class FaultKind(StrEnum):
    """How a call fails; ``timeout_after_post`` posts the message and never answers."""

    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT_AFTER_POST = "timeout_after_post"
    CHANNEL_NOT_FOUND = "channel_not_found"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - Slack's error code


class Fault(BaseModel):
    """Makes the next ``count`` calls fail: of all methods or of one, with any text or with one."""

    model_config = ConfigDict(extra="forbid")

    kind: FaultKind
    count: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 1
    retry_after_s: Annotated[
        int, Field(strict=True, ge=0, le=3_600, description="for rate_limited")
    ] = 1
    method: Annotated[str, Field(max_length=64, examples=["conversations.history"])] | None = None
    text: Annotated[str, Field(max_length=4_000, examples=["ada signed up"])] | None = None


class Faults:
    """The failures that are still to happen, in the order in which they were added."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault.model_copy())

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, method: str, text: str) -> Fault | None:
        """Return the fault of this call, if any, and count it."""
        for fault in self._waiting:
            if fault.method not in (None, method) or fault.text not in (None, text):
                continue
            if fault.kind is FaultKind.TIMEOUT_AFTER_POST and method != "chat.postMessage":
                continue
            fault.count -= 1
            if fault.count == 0:
                self._waiting.remove(fault)
            return fault
        return None
