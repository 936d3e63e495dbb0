from collections.abc import Sequence
from uuid import UUID

import pytest

from notification_service.chat import (
    Chat,
    OutcomeUnknown,
    RateLimited,
    Refused,
)
from notification_service.deliveries import PlannedDelivery
from notification_service.in_memory import InMemoryChat, InMemoryDeliveries

from .chat_suite import ChatSuite, Fault
from .delivery_queue_suite import Bench, DeliveryQueueSuite, Seen


class InMemoryBench:
    def __init__(self) -> None:
        self.queue = InMemoryDeliveries()

    async def plan(self, *deliveries: PlannedDelivery) -> None:
        for each in deliveries:
            self.queue.plan(each)

    async def see(self, id_: UUID) -> Seen:
        it = self.queue.stored[id_]
        return Seen(
            it.state,
            it.attempts,
            it.next_attempt_at,
            it.unsure_since,
            it.maybe_repeated,
            it.last_error,
            it.message_id,
            it.sent_at,
        )


class TestInMemoryDeliveries(DeliveryQueueSuite):
    @pytest.fixture
    def bench(self) -> Bench:
        return InMemoryBench()


class InMemoryChatBench:
    def __init__(self) -> None:
        self._chat = InMemoryChat(["growth", "other"])

    @property
    def chat(self) -> Chat:
        return self._chat

    async def texts(self) -> Sequence[str]:
        return [message.text for _, message in self._chat.messages]

    async def fail_next_post(self, fault: Fault) -> None:
        match fault:
            case Fault.RATE_LIMITED:
                self._chat.fail_next_post(RateLimited(7))
            case Fault.SERVER_ERROR:
                self._chat.fail_next_post(OutcomeUnknown("http_500"))
            case Fault.TIMEOUT_AFTER_POST:
                self._chat.fail_next_post(OutcomeUnknown("timeout"), posted=True)
            case Fault.TOKEN_REVOKED:
                self._chat.fail_next_post(Refused("token_revoked"))


class TestInMemoryChat(ChatSuite):
    @pytest.fixture
    def bench(self) -> InMemoryChatBench:
        return InMemoryChatBench()
