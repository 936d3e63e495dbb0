"""What an operator may put in an event's place: only what is about the event's own subject."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

import orjson
import pytest

from chassis.consuming.subscribers import EventSubscriber
from chassis.correlation import new_id
from chassis.domain import InvalidFields
from chassis.operations.payloads import NotEditable, bytes_for_subscriber, encoded_for_outbox
from contracts.envelope import CLIENT_CORRELATION_ID, Envelope, encode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1

ADA: Final = UUID(int=1)
BOB: Final = UUID(int=2)


async def _handle(_work: None, _event: UserSignedUpV1, _envelope: Envelope) -> None:
    """Do nothing."""


SUBSCRIBER: Final = EventSubscriber("test.one", USERS_USER, {UserSignedUpV1: _handle})


def signed_up(subject: UUID, *, user: UUID | None = None) -> dict[str, Any]:
    encoded = encode(
        UserSignedUpV1(user_id=user or subject, username="ada"),
        id=new_id(),
        source="/users",
        subject=str(subject),
        time=datetime(2026, 1, 1, tzinfo=UTC),
        sequence=1,
        correlationid="c-1",
    )
    payload: dict[str, Any] = orjson.loads(encoded.payload)
    return payload


def unidentified(key: bytes | None) -> Any:
    """A row of ``parked`` whose bytes do not contain its subject."""
    return SimpleNamespace(subject=None, key=key)


def set_aside(event: dict[str, Any], headers: Mapping[str, str]) -> Any:
    """A row of the outbox with Ada's event, which was set aside."""
    return SimpleNamespace(
        id=UUID(event["id"]),
        type=UserSignedUpV1.event_type,
        aggregateid=str(ADA),
        sequence=1,
        payload=orjson.dumps(event),
        headers=headers,
    )


def codes(refused: pytest.ExceptionInfo[InvalidFields]) -> list[str]:
    return [each.code for each in refused.value.broken]


class TestOfAnEventWithoutASubject:
    def test_is_about_the_records_key(self) -> None:
        given = signed_up(ADA)

        edited = bytes_for_subscriber(given, unidentified(str(ADA).encode()), SUBSCRIBER)

        assert orjson.loads(edited) == given

    def test_and_about_another_subject_is_refused(self) -> None:
        with pytest.raises(InvalidFields, match="subject: must stay") as refused:
            bytes_for_subscriber(signed_up(BOB), unidentified(str(ADA).encode()), SUBSCRIBER)

        assert codes(refused) == ["another-event"]

    @pytest.mark.parametrize("key", [None, b"", b"\xff", b"a\0b", b"x" * 256])
    def test_and_without_a_key_that_could_be_one_is_refused(self, key: bytes | None) -> None:
        with pytest.raises(NotEditable, match="discard it"):
            bytes_for_subscriber(signed_up(ADA), unidentified(key), SUBSCRIBER)


class TestInPlaceOfARowThatWasSetAside:
    def test_has_what_the_client_calls_its_request_as_the_row_had(self) -> None:
        given = signed_up(ADA)
        row = set_aside(given, {CLIENT_CORRELATION_ID: "order-17"})

        edited = encoded_for_outbox(given, row, USERS_USER)

        assert dict(edited.headers)[CLIENT_CORRELATION_ID] == b"order-17"


class TestDataAboutAnotherSubject:
    def test_is_refused_in_place_of_a_parked_event(self) -> None:
        given = signed_up(ADA, user=BOB)
        row: Any = SimpleNamespace(
            subject=str(ADA), key=str(ADA).encode(), event_id=UUID(given["id"]), sequence=1
        )

        with pytest.raises(InvalidFields, match=r"data\.user_id: must stay") as refused:
            bytes_for_subscriber(given, row, SUBSCRIBER)

        assert codes(refused) == ["another-event"]

    def test_is_refused_in_place_of_a_row_that_was_set_aside(self) -> None:
        given = signed_up(ADA, user=BOB)

        with pytest.raises(InvalidFields, match=r"data\.user_id: must stay") as refused:
            encoded_for_outbox(given, set_aside(given, {}), USERS_USER)

        assert codes(refused) == ["another-event"]
