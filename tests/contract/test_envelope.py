"""The envelope: what is encoded is decoded, and every other payload is refused."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from contracts.envelope import EncodedEvent, Envelope, InvalidEnvelope, decode, encode, event_in
from contracts.json_schemas import json_schemas
from contracts.users import TaskCreatedV1, UserSignedUpV1

USER = UUID("01937b5e-8a40-7c11-9d2e-5f0a6b7c8d9e")
EVENT = UUID("01937b5e-8a41-7b20-8c3d-4e5f60718293")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# The first text of a process takes a second or two to draw, more on a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=64)
uuids7 = st.uuids().map(
    lambda any_uuid: UUID(int=any_uuid.int & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def record(**changes: Any) -> EncodedEvent:
    arguments: dict[str, Any] = {
        "id": EVENT,
        "source": "/users",
        "subject": str(USER),
        "time": NOW,
        "sequence": 1,
        "correlationid": "request-1",
    }
    return encode(UserSignedUpV1(user_id=USER, username="ada"), **arguments | changes)


def on_the_wire(**changes: Any) -> bytes:
    attributes: dict[str, Any] = json.loads(record().payload) | changes
    return json.dumps({k: v for k, v in attributes.items() if v is not ...}).encode()


def decoded_or_reason(payload: bytes) -> Envelope | str:
    try:
        return decode(payload)
    except InvalidEnvelope as refused:
        return str(refused)


class TestEncode:
    @unhurried
    @given(
        user_id=st.uuids(),
        username=printable,
        event_id=uuids7,
        subject=printable,
        time=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5.5))])).filter(
            lambda time: 1 < time.year < 9999
        ),
        sequence=st.integers(1, 9_999_999_999),
        correlationid=printable,
        causationid=st.none() | printable,
        traceparent=st.none() | printable,
        other_versions=st.sets(st.integers(2, 999), max_size=10),
    )
    def test_what_was_encoded_is_decoded(
        self,
        user_id: UUID,
        username: str,
        event_id: UUID,
        subject: str,
        time: datetime,
        sequence: int,
        correlationid: str,
        causationid: str | None,
        traceparent: str | None,
        other_versions: set[int],
    ) -> None:
        event = UserSignedUpV1(user_id=user_id, username=username)
        others = {each: (sequence + each - 1) % 9_999_999_999 + 1 for each in other_versions}
        versions = {1: sequence} | others if others else None

        encoded = encode(
            event,
            id=event_id,
            source="/users",
            subject=subject,
            time=time,
            sequence=sequence,
            correlationid=correlationid,
            causationid=causationid,
            traceparent=traceparent,
            versions=versions,
        )

        envelope = decode(encoded.payload)
        assert event_in(envelope, UserSignedUpV1) == event
        assert (envelope.id, envelope.source, envelope.type, envelope.subject) == (
            event_id,
            "/users",
            "users.user-signed-up.v1",
            subject,
        )
        assert envelope.time == time
        assert envelope.sequence == sequence
        assert (envelope.correlationid, envelope.causationid, envelope.traceparent) == (
            correlationid,
            causationid,
            traceparent,
        )
        assert envelope.versions == versions
        assert encoded.key == subject.encode()

    def test_a_sequence_is_ten_digits_in_the_value_and_in_the_headers(self) -> None:
        encoded = record(sequence=42)

        assert json.loads(encoded.payload)["sequence"] == "0000000042"
        assert dict(encoded.headers)["sequence"] == b"0000000042"

    def test_a_time_is_written_in_utc(self) -> None:
        encoded = record(time=NOW.astimezone(timezone(timedelta(hours=-8))))

        assert json.loads(encoded.payload)["time"] == "2026-01-02T03:04:05Z"

    def test_what_is_absent_is_left_out(self) -> None:
        encoded = record()

        assert {"causationid", "traceparent", "versions"}.isdisjoint(json.loads(encoded.payload))
        assert "traceparent" not in dict(encoded.headers)

    def test_the_versions_of_a_fact_are_one_text(self) -> None:
        encoded = record(sequence=7, versions={1: 7, 2: 8})

        assert json.loads(encoded.payload)["versions"] == "v1:0000000007 v2:0000000008"

    def test_the_headers_repeat_the_value_and_none_means_binary_mode(self) -> None:
        encoded = record(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

        attributes = json.loads(encoded.payload)
        headers = dict(encoded.headers)
        assert headers.pop("content-type") == b"application/cloudevents+json"
        assert headers.keys() == {"type", "id", "subject", "sequence", "traceparent"}
        assert all(value.decode() == attributes[name] for name, value in headers.items())
        assert not any(name.startswith("ce_") for name in headers)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"sequence": 0},
            {"sequence": -1},
            {"sequence": 10_000_000_000},
            {"subject": ""},
            {"subject": "x" * 256},
            {"subject": "a\nb"},
            {"source": ""},
            {"correlationid": "x" * 129},
            {"time": NOW.replace(tzinfo=None)},
            {"id": UUID("8f14e45f-ceea-467f-a0e6-1b6c7a9d2b3c")},
        ],
        ids=str,
    )
    def test_what_no_reader_would_take_is_not_written(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="Envelope"):
            record(**wrong)


class TestDecode:
    def test_unknown_attributes_and_fields_are_ignored(self) -> None:
        payload = on_the_wire(
            partitionkey="7", data={"user_id": str(USER), "username": "ada", "new": {"a": 1}}
        )

        event = event_in(decode(payload), UserSignedUpV1)

        assert event == UserSignedUpV1(user_id=USER, username="ada")

    def test_an_optional_attribute_may_be_null(self) -> None:
        assert (
            decode(on_the_wire(causationid=None, traceparent=None, versions=None)).versions is None
        )

    def test_a_time_with_an_offset_is_read_as_utc(self) -> None:
        envelope = decode(on_the_wire(time="2026-01-02T05:04:05.000001+02:00"))

        assert envelope.time == NOW + timedelta(microseconds=1)
        assert envelope.time.utcoffset() == timedelta(0)

    @pytest.mark.parametrize(
        "payload",
        [
            None,
            b"",
            b" ",
            b"null",
            b"true",
            b"[]",
            b"[{}]",
            b"7",
            b'"text"',
            b"{}",
            b"not json",
            b"\xff\xfe",
            b"\xef\xbb\xbf{}",
            b'{"specversion": "\xff"}',
            record().payload + b"x",
            record().payload[:-1],
            record().payload.replace(b'"ada"', b"NaN"),
            record().payload.replace(b'"ada"', b"-Infinity"),
            record().payload.replace(b'"ada"', b'"\\ud800"'),
            record().payload.replace(b'"ada"', b"9" * 10_000),
            record().payload.replace(b'"ada"', b"[" * 100_000 + b"]" * 100_000),
            record().payload.replace(b'"ada"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        ],
        ids=lambda payload: repr(payload)[:24] + repr(payload)[-12:],
    )
    def test_bytes_that_are_no_event_are_refused(self, payload: bytes | None) -> None:
        with pytest.raises(InvalidEnvelope):
            decode(payload)

    @pytest.mark.parametrize(
        "attribute",
        [
            "specversion",
            "id",
            "source",
            "type",
            "subject",
            "time",
            "datacontenttype",
            "dataschema",
            "sequence",
            "correlationid",
            "data",
        ],
    )
    @pytest.mark.parametrize("value", [..., None, 7, True, "", [], "\x00"], ids=repr)
    def test_a_required_attribute_that_is_missing_or_wrong_is_named(
        self, attribute: str, value: Any
    ) -> None:
        with pytest.raises(InvalidEnvelope, match=f"^{attribute}: [a-z0-9_]+$"):
            decode(on_the_wire(**{attribute: value}))

    @pytest.mark.parametrize(
        ("attribute", "value"),
        [
            ("specversion", "0.3"),
            ("id", "not-a-uuid"),
            ("id", "8f14e45f-ceea-467f-a0e6-1b6c7a9d2b3c"),
            ("subject", "x" * 256),
            ("subject", "a\u0000b"),
            ("type", "x" * 256),
            ("correlationid", "x" * 129),
            ("causationid", "x" * 129),
            ("traceparent", 1),
            ("versions", ""),
            ("versions", {"v1": 1}),
            ("versions", "v1:0000000001"),
            ("versions", "v1:0000000001 v2:2"),
            ("versions", "v1:0000000001  v2:0000000002"),
            ("versions", "v1:0000000001 v2:0000000002\n"),
            ("versions", "v01:0000000001 v2:0000000002"),
            ("versions", "1:0000000001 2:0000000002"),
            ("versions", "v1:0000000001 v1:0000000002"),
            ("versions", "v1:0000000001 v2:0000000001"),
            ("versions", "v1:0000000001 v2:0000000000"),
            ("versions", " ".join(f"v{n}:{n:010d}" for n in range(1, 20))),
            # Not of this event, which has sequence 1.
            ("versions", "v1:0000000002 v2:0000000003"),
            ("datacontenttype", "text/plain"),
            ("data", "text"),
            ("sequence", "abc"),
            ("sequence", "1"),
            ("sequence", "0000000000"),
            ("sequence", "-000000001"),
            ("sequence", "+000000001"),
            ("sequence", "00000000001"),
            ("sequence", " 000000001"),
            ("sequence", "000000001\n"),
            ("sequence", "\N{ARABIC-INDIC DIGIT ONE}" * 10),
            ("sequence", "0_00000001"),
            ("sequence", 1),
            ("time", "yesterday"),
            ("time", "1700000000"),
            ("time", 1_700_000_000),
            ("time", "2026-01-02"),
            ("time", "2026-01-02T03:04:05"),
            ("time", "2026-01-02 03:04:05Z"),
            ("time", "2026-13-02T03:04:05Z"),
            ("time", "2026-01-02T03:04:05+99:00"),
            ("time", "0000-01-02T03:04:05Z"),
            ("time", "0001-01-01T00:00:00+23:59"),
            ("time", "9999-12-31T23:59:59-23:59"),
        ],
    )
    def test_a_wrong_attribute_is_named(self, attribute: str, value: Any) -> None:
        with pytest.raises(InvalidEnvelope, match=f"^{attribute}: [a-z0-9_]+$"):
            decode(on_the_wire(**{attribute: value}))

    @unhurried
    @given(st.binary())
    def test_any_bytes_are_an_event_or_refused(self, payload: bytes) -> None:
        with pytest.raises(InvalidEnvelope):
            decode(payload)

    @unhurried
    @given(st.dictionaries(st.sampled_from(sorted(json.loads(record().payload))), json_values))
    def test_any_attributes_are_an_event_or_refused(self, changes: dict[str, Any]) -> None:
        payload = on_the_wire(**changes)

        result = decoded_or_reason(payload)

        if isinstance(result, Envelope):
            assert result.data == json.loads(payload)["data"]
        else:
            assert re.fullmatch(r"[a-z0-9_]+: [a-z0-9_]+|not JSON: .+", result)

    @unhurried
    @given(
        st.dictionaries(
            st.sampled_from(["subject", "type", "id", "sequence", "causationid", "data"]),
            json_values | printable,
        )
    )
    def test_what_the_published_schema_takes_is_decoded(self, changes: dict[str, Any]) -> None:
        payload = on_the_wire(**changes)
        schema = Draft202012Validator(json_schemas()["envelope"])

        result = decoded_or_reason(payload)

        if schema.is_valid(json.loads(payload)):
            # Python's encoder writes NaN and lone surrogates, which are not JSON.
            assert isinstance(result, Envelope) or result.startswith("not JSON")

    @unhurried
    @given(
        st.dictionaries(
            st.sampled_from(sorted(json.loads(record().payload))), json_values | printable
        )
    )
    def test_both_ways_to_read_json_agree(self, changes: dict[str, Any]) -> None:
        payload = on_the_wire(**changes)
        # An ignored attribute that makes the decoder parse first and validate then.
        parsed_first = payload[:-1] + b', "x": "NaN"}'

        assert decoded_or_reason(payload) == decoded_or_reason(parsed_first)


class TestEventIn:
    def test_data_of_another_event_is_refused_by_the_field(self) -> None:
        with pytest.raises(InvalidEnvelope, match=r"^data\.task_id: missing$"):
            event_in(decode(record().payload), TaskCreatedV1)

    def test_a_reason_quotes_no_received_value(self) -> None:
        payload = on_the_wire(data={"user_id": "secret", "username": "secret\u0000"})

        with pytest.raises(InvalidEnvelope) as caught:
            event_in(decode(payload), UserSignedUpV1)

        assert str(caught.value) == "data.user_id: uuid_parsing"
        assert caught.value.__suppress_context__
