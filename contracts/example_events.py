"""One record of every event type: what one sign-up leads to, with values that never change."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from contracts.accounts import AccountOpenedV1, AccountsEventWithheldV1
from contracts.envelope import EncodedEvent, encode
from contracts.events import IntegrationEvent
from contracts.users import TaskCreatedV1, UsersEventWithheldV1, UserSignedUpV1

_ADA = UUID("01937b5e-8a40-7c11-9d2e-5f0a6b7c8d9e")
_ACCOUNT = UUID("01937b5e-8ac3-7f02-8b41-2c3d4e5f6a7b")
_TASK = UUID("01937b5e-8ad1-7a5c-b3f4-9e8d7c6b5a49")

_SIGNED_UP = UUID("01937b5e-8a41-7b20-8c3d-4e5f60718293")
_TASK_CREATED = UUID("01937b5e-8ad2-7d31-9e4f-506172839405")
_OPENED = UUID("01937b5e-8ac4-7e42-a051-627384950617")

_REQUEST = "01937b5e-8a3f-7000-8000-0000000000aa"
_SIGN_UP = datetime(2024, 11, 30, 4, 40, 13, 633_000, tzinfo=UTC)


def _record(
    event: IntegrationEvent,
    *,
    id: UUID,  # noqa: A002 - CloudEvents' own name
    subject: UUID,
    after_ms: int,
    sequence: int = 1,
    causationid: UUID | None = None,
) -> EncodedEvent:
    return encode(
        event,
        id=id,
        source="/" + event.event_type.split(".")[0],
        subject=str(subject),
        time=_SIGN_UP + timedelta(milliseconds=after_ms),
        sequence=sequence,
        correlationid=_REQUEST,
        causationid=str(causationid) if causationid else None,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


EXAMPLES: Mapping[str, EncodedEvent] = {
    UserSignedUpV1.event_type: _record(
        UserSignedUpV1(user_id=_ADA, username="ada"), id=_SIGNED_UP, subject=_ADA, after_ms=0
    ),
    AccountOpenedV1.event_type: _record(
        AccountOpenedV1(account_id=_ACCOUNT, user_id=_ADA, currency="USD"),
        id=_OPENED,
        subject=_ACCOUNT,
        after_ms=131,
        causationid=_SIGNED_UP,
    ),
    TaskCreatedV1.event_type: _record(
        TaskCreatedV1(task_id=_TASK, assignee_id=_ADA, name="Create your GitHub account"),
        id=_TASK_CREATED,
        subject=_TASK,
        after_ms=145,
        causationid=_SIGNED_UP,
    ),
    UsersEventWithheldV1.event_type: _record(
        UsersEventWithheldV1(
            withheld_id=UUID("01937b5e-9c00-7a63-b162-738495061728"),
            withheld_type=UserSignedUpV1.event_type,
        ),
        id=UUID("01937b60-11f5-7b74-8273-849506172839"),
        subject=_ADA,
        after_ms=100_276,
        sequence=2,
    ),
    AccountsEventWithheldV1.event_type: _record(
        AccountsEventWithheldV1(
            withheld_id=UUID("01937b5e-9d10-7c85-9384-95061728394a"),
            withheld_type=AccountOpenedV1.event_type,
        ),
        id=UUID("01937b60-2a8e-7d96-a495-06172839405b"),
        subject=_ACCOUNT,
        after_ms=106_573,
        sequence=2,
    ),
}
"""By event type."""
