"""One record of every event type: what one sign-up leads to, with values that never change."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.accounts import (
    AccountClosedV1,
    AccountFrozenV1,
    AccountOpenedV1,
    AccountsEventWithheldV1,
    AccountUnfrozenV1,
    HoldCapturedV1,
    HoldExpiredV1,
    HoldPlacedV1,
    HoldReleasedV1,
    TransactionCreatedV1,
    TransferReversedV1,
)
from contracts.envelope import EncodedEvent, encode
from contracts.events import IntegrationEvent
from contracts.operations import (
    BatchSkippedV1,
    DataReadV1,
    DeliveryRetriedV1,
    HoldEndedV1,
    OperationsEventWithheldV1,
    OperatorAct,
    OutboxRowDiscardedV1,
    OutboxRowEditedV1,
    OutboxRowReleasedV1,
    ParkedEventAppliedV1,
    ParkedEventDiscardedV1,
    ParkedEventEditedV1,
    ParkedEventParkedAgainV1,
    ParkedEventReleasedV1,
    ParkingAllowedV1,
    RecordToleratedV1,
    SubscriberPausedV1,
    SubscriberRestartedV1,
    SubscriberResumedV1,
    TimerDiscardedV1,
    TimerReleasedV1,
)
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
    source: str | None = None,
    id: UUID | None = None,  # noqa: A002 - CloudEvents' own name
    subject: UUID,
    after_ms: int,
    sequence: int = 1,
    causationid: UUID | None = None,
) -> EncodedEvent:
    """Return the record of an example; its id is made from its time unless one is given."""
    return encode(
        event,
        id=id or _id_made(after_ms=after_ms),
        source=source or "/" + event.event_type.split(".")[0],
        subject=str(subject),
        time=_SIGN_UP + timedelta(milliseconds=after_ms),
        sequence=sequence,
        correlationid=_REQUEST,
        causationid=str(causationid) if causationid else None,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


_OPERATOR = "01937b5e-0000-7000-8000-00000000000b"
_PARKED = UUID("01937b5e-8b10-7b64-9a53-0a1b2c3d4e5f")
_ROW = UUID("01937b5e-9c00-7a63-b162-738495061728")
_SUBSCRIBER = UUID("5f0a6b7c-8d9e-5a1b-8c2d-3e4f50617283")
_PARTITION = UUID("7c1e2d3f-4a5b-5c6d-9e7f-8a9b0c1d2e3f")
_DELIVERY = UUID("01937b5e-8b44-7c75-ab64-1b2c3d4e5f60")
_TIMER = UUID("01937b5e-8c55-7d86-bc75-2b3c4d5e6f70")
_TRANSFER = UUID("01937b5e-b0c1-7a21-8d32-4e5f60718294")
_REVERSAL = UUID("01937b5e-c1d2-7b32-9e43-5f60718293a5")
_HOLD = UUID("01937b5e-d2e3-7c43-8f54-60718293a4b5")
_PAYEE = UUID("01937b5e-e3f4-7d54-9065-718293a4b5c6")
_BYTES_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _id_made(*, after_ms: int) -> UUID:
    """Return a UUIDv7 of that time; all its random bits are zero."""
    at_ms = round(_SIGN_UP.timestamp() * 1_000) + after_ms
    return UUID(int=at_ms << 80 | 0x7000_8000_0000_0000_0000)


def _about_parked(why: str) -> dict[str, Any]:
    return {
        "by": _OPERATOR,
        "why": why,
        "subscriber": "accounts.open-account",
        "topic": "users.user",
        "partition": 3,
        "offset": 4_711,
        "parked_subject": str(_ADA),
        "parked_event_id": _SIGNED_UP,
        "parked_type": UserSignedUpV1.event_type,
    }


def _about_timer(why: str) -> dict[str, Any]:
    return {
        "by": _OPERATOR,
        "why": why,
        "timer_id": _TIMER,
        "timer_kind": "accounts.hold-expiry",
        "timer_subject": _ACCOUNT,
    }


def _about_row(why: str) -> dict[str, Any]:
    return {
        "by": _OPERATOR,
        "why": why,
        "topic": "accounts.account",
        "row_subject": str(_ACCOUNT),
        "row_sequence": 2,
        "row_type": AccountOpenedV1.event_type,
    }


def _about_partition(why: str) -> dict[str, Any]:
    return {"by": _OPERATOR, "why": why, "topic": "users.user", "partition": 3}


def _about_subscriber(why: str) -> dict[str, Any]:
    return {
        "by": _OPERATOR,
        "why": why,
        "subscriber": "accounts.open-account",
        "topic": "users.user",
    }


_EDITED = encode(
    UserSignedUpV1(user_id=_ADA, username="ada"),
    id=_SIGNED_UP,
    source="/users",
    subject=str(_ADA),
    time=_SIGN_UP,
    sequence=1,
    correlationid=_REQUEST,
).payload.decode()

_OF_ACCOUNT: Mapping[str, Any] = {"account_id": _ACCOUNT, "user_id": _ADA}
_MONEY: Sequence[IntegrationEvent] = (
    TransactionCreatedV1(
        **_OF_ACCOUNT,
        transaction_id=_TRANSFER,
        position=4,
        kind="transfer",
        currency="USD",
        delta=-1_230,
        balance_after=8_770,
    ),
    TransferReversedV1(
        **_OF_ACCOUNT,
        transfer_id=_TRANSFER,
        reversal_id=_REVERSAL,
        by=UUID(_OPERATOR),
        reason="sent to the wrong account",
    ),
    HoldPlacedV1(
        **_OF_ACCOUNT,
        hold_id=_HOLD,
        payee_account_id=_PAYEE,
        currency="USD",
        amount=4_000,
        expires_at=_SIGN_UP + timedelta(days=7),
    ),
    HoldCapturedV1(
        **_OF_ACCOUNT,
        hold_id=_HOLD,
        transaction_id=_REVERSAL,
        amount=3_500,
        currency="USD",
        by=_ADA,
    ),
    HoldReleasedV1(**_OF_ACCOUNT, hold_id=_HOLD, by=_ADA),
    HoldExpiredV1(**_OF_ACCOUNT, hold_id=_HOLD),
    AccountFrozenV1(**_OF_ACCOUNT, by=UUID(_OPERATOR), reason="a stolen password"),
    AccountUnfrozenV1(**_OF_ACCOUNT, by=UUID(_OPERATOR), reason="it has a new password"),
    AccountClosedV1(**_OF_ACCOUNT),
)

_ACTS: Sequence[tuple[UUID, OperatorAct]] = (
    (_PARKED, ParkedEventReleasedV1(**_about_parked("fixed in 1.4.2"))),
    (_PARKED, ParkedEventAppliedV1(**_about_parked("the older history is void"))),
    (
        _PARKED,
        ParkedEventParkedAgainV1(
            **_about_parked("fixed in 1.4.1"), error_code="account-already-open"
        ),
    ),
    (
        _PARKED,
        ParkedEventEditedV1(
            **_about_parked("the name was cut"),
            payload_sha256=hashlib.sha256(_EDITED.encode()).hexdigest(),
            replaced_sha256=_BYTES_SHA256,
            payload=_EDITED,
        ),
    ),
    (_PARKED, ParkedEventDiscardedV1(**_about_parked("a test of another team"))),
    (_ROW, OutboxRowReleasedV1(**_about_row("the topic takes 2 MB now"))),
    (
        _ROW,
        OutboxRowEditedV1(
            **_about_row("the text was too long"),
            payload_sha256=_BYTES_SHA256,
            replaced_sha256=hashlib.sha256(b"the longer text").hexdigest(),
            payload_id=UUID("01937b5e-9c10-7b12-8d3e-0a1b2c3d4e5f"),
        ),
    ),
    (_ROW, OutboxRowDiscardedV1(**_about_row("no consumer can read it"))),
    (_SUBSCRIBER, SubscriberPausedV1(**_about_subscriber("until 1.4.2 is out"))),
    (_SUBSCRIBER, SubscriberResumedV1(**_about_subscriber("1.4.2 is out"))),
    (_SUBSCRIBER, SubscriberRestartedV1(**_about_subscriber("its table was lost"))),
    (
        _PARTITION,
        ParkingAllowedV1(**_about_partition("a test of another team"), below_offset=812),
    ),
    (
        _PARTITION,
        BatchSkippedV1(
            **_about_partition("a disk changed a bit; its events are in the backup"),
            begin_offset=640,
            end_offset=652,
            raw_sha256=_BYTES_SHA256,
        ),
    ),
    (
        _PARTITION,
        HoldEndedV1(
            **_about_partition("the topic was made again"),
            subscriber="accounts.open-account",
            next_offset=0,
        ),
    ),
    (
        _DELIVERY,
        DeliveryRetriedV1(
            by=_OPERATOR, why="the channel is there now", delivery_id=_DELIVERY, rule="new-user"
        ),
    ),
    (_TIMER, TimerReleasedV1(**_about_timer("1.4.3 is out"))),
    (_TIMER, TimerDiscardedV1(**_about_timer("it was done by hand"))),
    (
        _PARTITION,
        RecordToleratedV1(
            **_about_partition("a test of another team"), offset=77, value_sha256=_BYTES_SHA256
        ),
    ),
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
    OperationsEventWithheldV1.event_type: _record(
        OperationsEventWithheldV1(
            withheld_id=UUID("01937b5e-9e20-7e97-8495-0617283940ab"),
            withheld_type=ParkedEventReleasedV1.event_type,
        ),
        id=UUID("01937b60-3bf1-7fa8-b5a6-1728394051bc"),
        subject=_PARKED,
        after_ms=111_024,
        sequence=2,
        source="/accounts",
    ),
    DataReadV1.event_type: _record(
        DataReadV1(by=UUID(_OPERATOR), route="/users/{user_id}/account", ids=(str(_ADA),)),
        id=_id_made(after_ms=190_000),
        subject=UUID(_OPERATOR),
        after_ms=190_000,
        source="/accounts",
    ),
    **{
        event.event_type: _record(
            event, subject=_ACCOUNT, after_ms=90_000 + number, sequence=2 + number
        )
        for number, event in enumerate(_MONEY)
    },
    **{
        act.event_type: _record(
            act,
            id=_id_made(after_ms=200_000 + number),
            subject=subject,
            after_ms=200_000 + number,
            source="/notification" if isinstance(act, DeliveryRetriedV1) else "/accounts",
        )
        for number, (subject, act) in enumerate(_ACTS)
    },
}
"""By event type."""
