"""The promises of a chat; the suite runs on the fake and on slack_sdk."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest

from notification_service.chat import Chat, Message, OutcomeUnknown, RateLimited, Refused

AN_HOUR = timedelta(hours=1)


class Fault(StrEnum):
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT_AFTER_POST = "timeout_after_post"
    TOKEN_REVOKED = "token_revoked"


class ChatBench(Protocol):
    """A chat with the channels growth and other, whose next post can be made to fail."""

    @property
    def chat(self) -> Chat: ...
    async def texts(self) -> Sequence[str]: ...
    async def fail_next_post(self, fault: Fault) -> None: ...


def message(**changes: Any) -> Message:
    given: dict[str, Any] = {
        "channel": "growth",
        "text": "ada signed up",
        "delivery_id": uuid4(),
        "correlation_id": "c-1",
    }
    return Message(**given | changes)


async def find(bench: ChatBench, delivery_id: UUID, *, ago: timedelta = AN_HOUR) -> str | None:
    return await bench.chat.find("growth", delivery_id, since=datetime.now(UTC) - ago)


class ChatSuite:
    async def test_a_posted_message_is_found_by_its_delivery(self, bench: ChatBench) -> None:
        one, two = message(), message(text="bob signed up")

        first = await bench.chat.post(one)
        second = await bench.chat.post(two)

        assert first < second
        assert await bench.texts() == ["ada signed up", "bob signed up"]
        assert await find(bench, one.delivery_id) == first
        assert await find(bench, two.delivery_id) == second

    async def test_a_message_that_was_not_posted_is_not_found(self, bench: ChatBench) -> None:
        await bench.chat.post(message())

        assert await find(bench, uuid4()) is None

    async def test_an_older_message_is_not_found(self, bench: ChatBench) -> None:
        posted = message()
        await bench.chat.post(posted)

        assert await find(bench, posted.delivery_id, ago=-AN_HOUR) is None

    async def test_an_unknown_channel_is_refused(self, bench: ChatBench) -> None:
        with pytest.raises(Refused, match="channel_not_found"):
            await bench.chat.post(message(channel="missing"))
        with pytest.raises(Refused, match="channel_not_found"):
            await bench.chat.find("missing", uuid4(), since=datetime.now(UTC))

    async def test_a_rate_limit_has_the_time_to_wait(self, bench: ChatBench) -> None:
        await bench.fail_next_post(Fault.RATE_LIMITED)

        with pytest.raises(RateLimited) as refused:
            await bench.chat.post(message())

        assert refused.value.retry_after_s == 7
        assert await bench.texts() == []

    async def test_a_refusal_has_the_chats_own_code(self, bench: ChatBench) -> None:
        await bench.fail_next_post(Fault.TOKEN_REVOKED)

        with pytest.raises(Refused, match="token_revoked"):
            await bench.chat.post(message())

        assert await bench.texts() == []

    async def test_a_server_error_leaves_the_outcome_unknown(self, bench: ChatBench) -> None:
        await bench.fail_next_post(Fault.SERVER_ERROR)

        with pytest.raises(OutcomeUnknown, match="http_500"):
            await bench.chat.post(message())

    async def test_a_message_that_was_posted_without_an_answer_is_found(
        self, bench: ChatBench
    ) -> None:
        await bench.fail_next_post(Fault.TIMEOUT_AFTER_POST)
        posted = message()

        with pytest.raises(OutcomeUnknown, match="timeout"):
            await bench.chat.post(posted)

        assert await bench.texts() == ["ada signed up"]
        assert await find(bench, posted.delivery_id) is not None
