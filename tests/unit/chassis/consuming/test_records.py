"""What a record says of itself, in its headers or in its value."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.consuming.records import (
    EventIdentity,
    header_as_json,
    header_from_json,
    identity_of,
    open_record,
    readable_name,
)
from chassis.correlation import new_id
from chassis.testing import FakeRecord
from contracts.envelope import InvalidEnvelope, encode
from contracts.users import UserSignedUpV1

ID = new_id()
EVENT = encode(
    UserSignedUpV1(user_id=uuid4(), username="ada"),
    id=ID,
    source="/users",
    subject="ada",
    time=datetime(2026, 1, 1, tzinfo=UTC),
    sequence=7,
    correlationid="c",
)
RECORD = FakeRecord.of(EVENT, "users.user", 0)
NOT_UTF_8 = b"a\xffb".decode("utf-8", "surrogateescape")
LABEL = EventIdentity("ada", 7, ID, "users.user-signed-up.v1")


def with_header(name: str, value: bytes | None) -> FakeRecord:
    changed: dict[str, bytes | None] = {**dict(EVENT.headers), name: value}
    return replace(RECORD, headers=list(changed.items()), value=b"not looked at")


class TestTheLabel:
    def test_is_read_from_the_headers_without_opening_the_value(self) -> None:
        assert identity_of(replace(RECORD, value=b"not looked at")) == LABEL

    def test_is_read_from_the_value_where_there_are_no_headers(self) -> None:
        assert identity_of(replace(RECORD, headers=[])) == LABEL

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("content-type", b"application/json"),
            ("content-type", None),
            ("sequence", b"7"),
            ("sequence", b"0000000000"),
            ("sequence", b"-000000007"),
            ("sequence", None),
            ("id", b"x"),
            # Not a UUIDv7: it would spoil the order of ids.
            ("id", b"3820077f-c289-4fd4-9cf3-b176b66ec855"),
            ("id", None),
            ("subject", b""),
            ("subject", b"\xff"),
            ("subject", b"a\0b"),
            ("subject", b"x" * 256),
            ("subject", None),
            ("type", None),
            ("type", b"line\nbreak"),
        ],
    )
    def test_is_not_believed_from_headers_that_are_not_ours(
        self, name: str, value: bytes | None
    ) -> None:
        with pytest.raises(InvalidEnvelope):
            identity_of(with_header(name, value))

    def test_is_that_of_the_first_of_two_headers_with_one_name(self) -> None:
        twice = replace(RECORD, headers=[*EVENT.headers, ("sequence", b"0000000009")])

        assert identity_of(twice).sequence == 7

    def test_is_not_believed_beside_a_name_that_is_not_utf_8(self) -> None:
        odd = replace(RECORD, headers=[*EVENT.headers, (NOT_UTF_8, b"x")])

        with pytest.raises(InvalidEnvelope, match="headers: a name is not UTF-8"):
            identity_of(odd)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["content-type", "sequence", "id", "subject", "type", "x"]),
                st.none() | st.binary(max_size=40),
            )
        ),
        st.none() | st.binary(max_size=60),
    )
    def test_is_a_label_or_no_event_whatever_the_bytes(
        self, headers: list[Any], value: bytes | None
    ) -> None:
        try:
            label = identity_of(replace(RECORD, headers=headers, value=value))
        except InvalidEnvelope:
            return
        assert label.sequence > 0


class TestAHeaderThatIsKept:
    @pytest.mark.parametrize(
        "header",
        [("type", b"\xff"), ("", None), ("\0", b""), ("a\\xff", b"x"), (NOT_UTF_8, b"x")],
        ids=["usual", "empty", "nul", "backslash", "not UTF-8"],
    )
    def test_is_the_same_when_it_is_read_again(self, header: tuple[str, bytes | None]) -> None:
        kept = json.loads(json.dumps(header_as_json(*header)))

        assert header_from_json(kept) == header

    def test_can_be_shown_whatever_its_name(self) -> None:
        shown, value, raw = header_as_json(NOT_UTF_8, b"x")

        assert (shown, value, raw) == ("a\\xffb", "eA==", "Yf9i")
        assert readable_name("naïve") == "naïve"


class TestOpening:
    def test_gives_the_envelope(self) -> None:
        assert open_record(RECORD, LABEL).subject == "ada"

    @pytest.mark.parametrize(
        "other",
        [
            LABEL._replace(subject="bob"),
            LABEL._replace(sequence=8),
            LABEL._replace(event_id=new_id()),
            LABEL._replace(type="users.task-created.v1"),
        ],
    )
    def test_refuses_another_event_than_the_headers_identify(self, other: EventIdentity) -> None:
        with pytest.raises(InvalidEnvelope, match="headers"):
            open_record(RECORD, other)
