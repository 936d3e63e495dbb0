"""Public fakes of the delivery worker's ports, for tests."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from notification_service.chat import ChatError, Message, Refused
from notification_service.deliveries import ClaimedDelivery, PlannedDelivery, State


@dataclass(slots=True)
class StoredDelivery:
    """A delivery and its state."""

    planned: PlannedDelivery
    updated_at: datetime
    next_attempt_at: datetime | None
    state: State = State.PENDING
    attempts: int = 0
    claimed_at: datetime | None = None
    unsure_since: datetime | None = None
    maybe_repeated: bool = False
    last_error: str | None = None
    message_id: str | None = None
    sent_at: datetime | None = None


class InMemoryDeliveries:
    """Planned deliveries and their queue."""

    def __init__(self) -> None:
        self.stored: dict[UUID, StoredDelivery] = {}
        self._pauses: dict[str, tuple[datetime, datetime]] = {}

    def plan(self, delivery: PlannedDelivery) -> None:
        known = {(each.planned.event_id, each.planned.rule) for each in self.stored.values()}
        if (delivery.event_id, delivery.rule) not in known:
            at = delivery.created_at
            self.stored[delivery.id] = StoredDelivery(delivery, updated_at=at, next_attempt_at=at)

    async def claim(
        self, now: datetime, *, lease_until: datetime, reclaim_at: datetime, limit: int
    ) -> Sequence[ClaimedDelivery]:
        due = [
            (each.next_attempt_at, each)
            for each in self.stored.values()
            if each.next_attempt_at is not None
            and each.next_attempt_at <= now
            and not self._is_paused(each.planned.address, now)
        ]
        due.sort(key=lambda pair: pair[0])
        return [self._claim(each, now, lease_until, reclaim_at) for _, each in due[:limit]]

    def _is_paused(self, address: str, now: datetime) -> bool:
        began_at, until = self._pauses.get(address, (now, now))
        return began_at <= now < until

    def _claim(
        self, it: StoredDelivery, now: datetime, lease_until: datetime, reclaim_at: datetime
    ) -> ClaimedDelivery:
        if it.state is State.SENDING and it.unsure_since is None:
            it.unsure_since = it.claimed_at
        it.state = State.SENDING
        it.attempts += 1
        it.claimed_at = it.updated_at = now
        it.next_attempt_at = reclaim_at
        planned = it.planned
        return ClaimedDelivery(
            id=planned.id,
            rule=planned.rule,
            event_id=planned.event_id,
            address=planned.address,
            text=planned.text,
            correlation_id=planned.correlation_id,
            traceparent=planned.traceparent,
            created_at=planned.created_at,
            attempt=it.attempts,
            lease_until=lease_until,
            unsure_since=it.unsure_since,
        )

    async def will_repeat(
        self, claimed: ClaimedDelivery, now: datetime, *, reclaim_at: datetime
    ) -> bool:
        it = self._still_claimed(claimed)
        if it is not None:
            it.maybe_repeated = True
            it.updated_at, it.next_attempt_at = now, reclaim_at
        return it is not None

    async def sent(self, claimed: ClaimedDelivery, message_id: str, now: datetime) -> bool:
        it = self._still_claimed(claimed)
        if it is not None:
            it.state, it.message_id, it.last_error = State.SENT, message_id, None
            it.sent_at = it.updated_at = now
            it.next_attempt_at = None
        return it is not None

    async def failed(self, claimed: ClaimedDelivery, error: str, now: datetime) -> bool:
        it = self._still_claimed(claimed)
        if it is not None:
            it.state, it.last_error = State.FAILED, error
            it.updated_at, it.next_attempt_at = now, None
        return it is not None

    async def put_back(
        self, claimed: ClaimedDelivery, error: str, now: datetime, *, at: datetime, unsure: bool
    ) -> bool:
        it = self._still_claimed(claimed)
        if it is not None:
            it.state, it.last_error = State.PENDING, error
            if unsure and it.unsure_since is None:
                it.unsure_since = it.claimed_at
            it.updated_at, it.next_attempt_at = now, at
        return it is not None

    def _still_claimed(self, claimed: ClaimedDelivery) -> StoredDelivery | None:
        it = self.stored[claimed.id]
        return it if it.state is State.SENDING and it.attempts == claimed.attempt else None

    async def pause(self, address: str, now: datetime, *, until: datetime) -> None:
        began_at, before = self._pauses.get(address, (now, until))
        self._pauses[address] = (now, max(before, until) if began_at <= now else until)

    async def restart_waits(self, now: datetime) -> None:
        for it in self.stored.values():
            if it.next_attempt_at is not None and it.updated_at > now:
                it.next_attempt_at = now + (it.next_attempt_at - it.updated_at)
                it.updated_at = now


class InMemoryChat:
    """A chat that stores its messages; the next calls can be made to fail."""

    def __init__(self, channels: Iterable[str] = ("growth",)) -> None:
        self.messages: list[tuple[str, Message]] = []
        self._channels = frozenset(channels)
        self._failing_posts: list[tuple[ChatError, bool]] = []
        self._failing_searches: list[ChatError] = []
        self._last = datetime.now(UTC)

    def fail_next_post(self, error: ChatError, *, posted: bool = False) -> None:
        """Answer the next post with an error; ``posted``: post the message before."""
        self._failing_posts.append((error, posted))

    def fail_next_search(self, error: ChatError) -> None:
        self._failing_searches.append(error)

    async def post(self, message: Message) -> str:
        if message.channel not in self._channels:
            raise Refused("channel_not_found")
        error, posted = self._failing_posts.pop(0) if self._failing_posts else (None, True)
        if posted:
            self._last = max(self._last + timedelta(microseconds=1), datetime.now(UTC))
            self.messages.append((f"{self._last.timestamp():.6f}", message))
        if error is not None:
            raise error
        return self.messages[-1][0]

    async def find(self, channel: str, delivery_id: UUID, *, since: datetime) -> str | None:
        if self._failing_searches:
            raise self._failing_searches.pop(0)
        if channel not in self._channels:
            raise Refused("channel_not_found")
        for message_id, message in self.messages:
            if message.delivery_id == delivery_id and float(message_id) > since.timestamp():
                return message_id
        return None
