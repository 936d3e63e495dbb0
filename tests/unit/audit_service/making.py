"""Makes records as Kafka delivers them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from chassis.correlation import new_id
from chassis.testing import FakeRecord
from contracts.envelope import EncodedEvent, encode
from contracts.users import UserSignedUpV1

OCCURRED_AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(
    *,
    subject: str | None = None,
    sequence: int = 1,
    id_: UUID | None = None,
    source: str = "/users",
    username: str = "ada",
    correlation_id: str = "c-1",
    occurred_at: datetime = OCCURRED_AT,
    traceparent: str | None = TRACEPARENT,
    client_correlation_id: str | None = None,
) -> EncodedEvent:
    user_id = uuid4()
    return encode(
        UserSignedUpV1(user_id=user_id, username=username),
        id=id_ or new_id(),
        source=source,
        subject=subject or str(user_id),
        time=occurred_at,
        sequence=sequence,
        correlationid=correlation_id,
        causationid="r-1",
        traceparent=traceparent,
        client_correlation_id=client_correlation_id,
    )


def record(
    event_: EncodedEvent, offset: int = 0, *, partition: int = 0, topic: str = "users.user"
) -> FakeRecord:
    return FakeRecord.of(event_, topic, offset, partition)


def bytes_record(
    value: bytes | None,
    offset: int = 0,
    *,
    key: bytes | None = None,
    headers: Sequence[tuple[str, bytes | None]] = (),
) -> FakeRecord:
    return FakeRecord("users.user", 0, offset, key, value, headers)


def numbered(events: Sequence[EncodedEvent], first_offset: int = 0) -> list[FakeRecord]:
    return [record(each, offset) for offset, each in enumerate(events, first_offset)]
