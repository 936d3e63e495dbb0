"""How Kafka records are recorded in PostgreSQL."""

import asyncio
import hashlib
import json
from collections.abc import MutableMapping, Sequence
from typing import Any
from uuid import uuid4

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import text

from audit_service.records import AuditWork, keep
from chassis.consuming.records import header_from_json
from chassis.correlation import new_id
from chassis.persistence.database import Database, Row
from chassis.testing import FakeRecord, eventually
from contracts.envelope import EncodedEvent
from tests.integration.audit_service.evidence import RECORDED_AT, all_records, keep_chunk
from tests.integration.statements import statements_on
from tests.unit.audit_service.making import (
    OCCURRED_AT,
    TRACEPARENT,
    bytes_record,
    event,
    numbered,
    record,
)


def with_attributes(base: EncodedEvent, **attributes: object) -> bytes:
    return json.dumps(json.loads(base.payload) | attributes).encode()


NO_EVENTS = {
    "nothing": b"",
    "not JSON": b"\x00\xff not JSON",
    "another envelope": b'{"hello": "world"}',
    "a list": b"[]",
    "a lone surrogate": b'{"specversion": "\\ud800"}',
    "not a number": b'{"data": NaN}',
    "deep": b"[" * 100_000,
    "a megabyte": b'{"data": "' + b"x" * 1_000_000 + b'"}',
    "a NUL in a name": with_attributes(event(), subject="a\0b"),
    "a name too long": with_attributes(event(), subject="x" * 256),
    "a year too far": with_attributes(event(), time="10000-01-01T00:00:00Z"),
    "sequence 0": with_attributes(event(), sequence="0000000000"),
}


class TestAnEvent:
    async def test_is_recorded_byte_for_byte_with_its_envelope_in_columns(
        self, engine: Database
    ) -> None:
        subject, id_ = str(uuid4()), new_id()
        delivered = record(event(subject=subject, id_=id_), offset=7, partition=3)
        await keep_chunk(engine, delivered)
        (row,) = await all_records(engine)
        assert (row.topic, row.partition, row.offset) == ("users.user", 3, 7)
        assert (row.key, row.payload) == (subject.encode(), delivered.value)
        assert row.sha256 == hashlib.sha256(delivered.value or b"").digest()
        assert row.headers[1] == ["type", "dXNlcnMudXNlci1zaWduZWQtdXAudjE="]
        assert (row.event_id, row.source, row.subject) == (id_, "/users", subject)
        assert (row.type, row.sequence) == ("users.user-signed-up.v1", 1)
        assert (row.occurred_at, row.recorded_at) == (OCCURRED_AT, RECORDED_AT)
        assert (row.correlation_id, row.causation_id) == ("c-1", "r-1")
        assert row.traceparent == TRACEPARENT
        assert (row.invalid_reason, row.verdict, row.altered) == (None, "next", False)

    async def test_of_an_unknown_type_without_headers_or_key_is_an_event_too(
        self, engine: Database
    ) -> None:
        payload = with_attributes(
            event(), type="others.something-happened.v9", data={"any": "thing"}
        )
        await keep_chunk(engine, bytes_record(payload))
        (row,) = await all_records(engine)
        assert (row.type, row.invalid_reason) == ("others.something-happened.v9", None)
        assert (row.key, row.headers) == (None, [])

    async def test_that_is_delivered_again_is_dropped_and_counted(self, engine: Database) -> None:
        same = event()
        dropped = outcomes("dropped")
        await keep_chunk(engine, record(same, 0), record(same, 1))
        await keep_chunk(engine, record(same, 2), record(event(), 3))
        assert [row.offset for row in await all_records(engine)] == [0, 3]
        assert outcomes("dropped") - dropped == 2

    async def test_that_is_dropped_uses_up_no_position(self, engine: Database) -> None:
        same = event()
        await keep_chunk(engine, record(same, 0))
        await keep_chunk(engine, record(same, 1), record(event(), 2), record(same, 3))
        await keep_chunk(engine, record(event(), 4))
        assert [row.position for row in await all_records(engine)] == [1, 2, 3]

    async def test_with_the_id_of_a_different_event_is_recorded_and_reported(
        self, engine: Database
    ) -> None:
        id_, subject = new_id(), str(uuid4())
        before = outcomes("altered")
        await keep_chunk(engine, record(event(id_=id_, subject=subject), 0))
        with structlog.testing.capture_logs() as lines:
            await keep_chunk(
                engine,
                record(event(id_=id_, subject=subject, username="eve"), 1),
                record(event(id_=id_), 2),
            )
        assert [row.altered for row in await all_records(engine)] == [False, True, True]
        assert outcomes("altered") - before == 2
        assert [reported(line) for line in lines] == [("record-altered", [1, 2])]

    async def test_with_the_id_of_an_event_of_another_source_is_not_altered(
        self, engine: Database
    ) -> None:
        id_ = new_id()
        await keep_chunk(
            engine, record(event(id_=id_)), record(event(id_=id_, source="/accounts"), 1)
        )
        assert [row.altered for row in await all_records(engine)] == [False, False]


class TestARecordThatIsNoEvent:
    @pytest.mark.parametrize("payload", NO_EVENTS.values(), ids=NO_EVENTS)
    async def test_is_recorded_with_the_reason(self, engine: Database, payload: bytes) -> None:
        before = outcomes("invalid")
        with structlog.testing.capture_logs() as lines:
            await keep_chunk(engine, bytes_record(payload), record(event(), 1))
        row, event_row = await all_records(engine)
        assert (row.payload, row.sha256) == (payload, hashlib.sha256(payload).digest())
        assert row.invalid_reason
        assert (row.event_id, row.subject, row.verdict) == (None, None, None)
        assert row.occurred_at == RECORDED_AT
        assert event_row.invalid_reason is None
        assert outcomes("invalid") - before == 1
        assert [reported(line) for line in lines] == [("record-invalid", [0])]

    async def test_without_a_value_differs_from_one_with_an_empty_value(
        self, engine: Database
    ) -> None:
        await keep_chunk(engine, bytes_record(None, 0, key=b"k"), bytes_record(b"", 1))
        assert [row.payload for row in await all_records(engine)] == [None, b""]

    async def test_of_headers_only_is_recorded(self, engine: Database) -> None:
        await keep_chunk(engine, bytes_record(None, headers=event().headers))
        (row,) = await all_records(engine)
        assert row.invalid_reason == "no value"
        assert len(row.headers) == 6

    async def test_with_a_header_name_that_is_not_utf_8_is_recorded_as_it_came(
        self, engine: Database
    ) -> None:
        odd = [*event().headers, (b"a\xff".decode("utf-8", "surrogateescape"), b"x")]
        await keep_chunk(engine, bytes_record(event().payload, headers=odd))
        (row,) = await all_records(engine)
        assert row.invalid_reason == "headers: a name is not UTF-8"
        assert decoded(row) == odd

    async def test_includes_an_event_under_the_headers_of_another(self, engine: Database) -> None:
        await keep_chunk(engine, bytes_record(event().payload, headers=event().headers))
        (row,) = await all_records(engine)
        assert row.invalid_reason == "headers: not those of the event in the value"

    async def test_is_dropped_if_it_is_delivered_again_from_its_offset(
        self, engine: Database
    ) -> None:
        await keep_chunk(engine, bytes_record(b"same", 4))
        await keep_chunk(engine, bytes_record(b"same", 4), bytes_record(b"same", 5))
        assert [row.offset for row in await all_records(engine)] == [4, 5]

    async def test_is_reported_if_other_bytes_had_its_offset(self, engine: Database) -> None:
        await keep_chunk(engine, bytes_record(b"before", 4))
        await keep_chunk(engine, bytes_record(b"after", 4))
        assert [row.altered for row in await all_records(engine)] == [False, True]


class TestASequence:
    async def test_without_a_gap_is_next(self, engine: Database) -> None:
        assert await verdicts(engine, [1, 2], [3]) == ["next", "next", "next"]
        assert await missing(engine) == []

    async def test_that_does_not_start_at_one_has_its_first_numbers_missing(
        self, engine: Database
    ) -> None:
        assert await verdicts(engine, [3]) == ["after-gap"]
        assert await missing(engine) == [1, 2]

    async def test_that_jumps_is_reported_and_the_missing_numbers_recorded(
        self, engine: Database
    ) -> None:
        with structlog.testing.capture_logs() as lines:
            assert await verdicts(engine, [1], [4]) == ["next", "after-gap"]
        assert await missing(engine) == [2, 3]
        assert [reported(line) for line in lines] == [("record-after-gap", [1])]

    async def test_that_is_delivered_late_closes_its_gap(self, engine: Database) -> None:
        assert await verdicts(engine, [1, 4], [2]) == ["next", "after-gap", "late"]
        assert await missing(engine) == [3]

    async def test_used_again_by_a_newer_event_is_forked(self, engine: Database) -> None:
        assert await verdicts(engine, [1, 2], [2]) == ["next", "next", "forked"]

    async def test_is_counted_separately_for_each_subject_and_topic(self, engine: Database) -> None:
        subject = str(uuid4())
        await keep_chunk(engine, record(event(subject=subject)))
        await keep_chunk(engine, record(event(subject=subject), topic="users.task"))
        await keep_chunk(engine, record(event(), 1))
        assert [row.verdict for row in await all_records(engine)] == ["next", "next", "next"]

    async def test_of_a_repeat_changes_no_count(self, engine: Database) -> None:
        subject = str(uuid4())
        first, second = event(subject=subject), event(subject=subject, sequence=2)
        await keep_chunk(engine, *numbered([first, second]))
        await keep_chunk(engine, record(first, 2))
        await keep_chunk(engine, record(event(subject=subject, sequence=3), 3))
        assert [row.verdict for row in await all_records(engine)] == ["next", "next", "next"]


class TestAChunk:
    async def test_of_500_records_takes_as_many_statements_as_one_of_2(
        self, engine: Database
    ) -> None:
        with statements_on(engine) as statements:
            await keep_chunk(engine, *numbered([event() for _ in range(2)]))
            few = len(statements)
            await keep_chunk(engine, *numbered([event() for _ in range(500)], first_offset=2))
        assert len(statements) - few == few <= 5
        assert len(await all_records(engine)) == 502

    async def test_keeps_the_order_of_its_records(self, engine: Database) -> None:
        await keep_chunk(engine, *numbered([event() for _ in range(500)]))
        assert [row.offset for row in await all_records(engine)] == list(range(500))

    async def test_that_fails_records_nothing(self, engine: Database) -> None:
        async with engine.begin_rolled_back() as connection:
            await keep(AuditWork(connection, lambda: RECORDED_AT), [record(event())])
        assert await all_records(engine) == []

    async def test_waits_for_another_chunk_with_the_same_event(self, engine: Database) -> None:
        same = event()
        async with engine.begin() as first:
            await keep(AuditWork(first, lambda: RECORDED_AT), [record(same, partition=0)])
            second = asyncio.create_task(keep_chunk(engine, record(same, partition=1)))
            await until_a_lock_is_waited_for(engine)
        await second
        assert [row.partition for row in await all_records(engine)] == [0]

    async def test_fails_once_if_another_topic_delivers_the_same_event_at_the_same_time(
        self, engine: Database
    ) -> None:
        same = event()
        async with engine.begin() as first:
            await keep(AuditWork(first, lambda: RECORDED_AT), [record(same)])
            second = asyncio.create_task(keep_chunk(engine, record(same, topic="users.task")))
            await until_a_lock_is_waited_for(engine)
        with pytest.raises(Exception, match="records_event_id_source_sha256_key"):
            await second
        await keep_chunk(engine, record(same, topic="users.task"))
        assert [row.topic for row in await all_records(engine)] == ["users.user"]


AN_EVENT = b"(a new event)"
# A name that is not UTF-8 comes in the form that Python gives it.
NAMES = st.binary(max_size=20).map(lambda name: name.decode("utf-8", "surrogateescape"))
HEADERS = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | NAMES,
    st.none() | st.binary(),
)


@given(
    st.lists(
        st.tuples(
            st.none() | st.just(AN_EVENT) | st.binary(),
            st.none() | st.binary(),
            st.lists(HEADERS, max_size=3),
        ),
        min_size=1,
    )
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_records_are_recorded_byte_for_byte(
    audit_database: str, delivered: list[tuple[bytes | None, bytes | None, list[tuple[str, Any]]]]
) -> None:
    topic = f"test.{uuid4().hex}"
    chunk = [
        FakeRecord(topic, 0, at, key, event().payload if value == AN_EVENT else value, headers)
        for at, (value, key, headers) in enumerate(delivered)
    ]

    async def keep_and_read() -> list[FakeRecord]:
        engine = Database(audit_database, pool_size=1, application_name="test")
        try:
            await keep_chunk(engine, *chunk)
            rows = await all_records(engine)
        finally:
            await engine.close()
        return [
            FakeRecord(row.topic, row.partition, row.offset, row.key, row.payload, decoded(row))
            for row in rows
            if row.topic == topic
        ]

    assert asyncio.run(keep_and_read()) == chunk


def decoded(row: Row) -> list[tuple[str, Any]]:
    return [header_from_json(each) for each in row.headers]


async def verdicts(engine: Database, *chunks: Sequence[int]) -> list[str]:
    """Record events of one subject with these sequences, and return their verdicts."""
    subject, offset = str(uuid4()), 0
    for chunk in chunks:
        events = [event(subject=subject, sequence=number) for number in chunk]
        await keep_chunk(engine, *numbered(events, offset))
        offset += len(chunk)
    return [row.verdict for row in await all_records(engine)]


async def missing(engine: Database) -> list[int]:
    async with engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT generate_series(sequence, last_sequence) FROM inbox_missing"
                " WHERE subscriber = 'audit.keep' ORDER BY 1"
            )
        )
        return list(found.scalars())


def outcomes(outcome: str) -> float:
    labels = {"topic": "users.user", "outcome": outcome}
    return REGISTRY.get_sample_value("audit_records_total", labels) or 0


def reported(line: MutableMapping[str, Any]) -> tuple[str, list[int]]:
    assert line["log_level"] == "warning"
    assert len(line["offsets"]) == line["count"]
    return line["event"], line["offsets"]


async def until_a_lock_is_waited_for(engine: Database) -> None:
    query = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    async def a_lock_is_waited_for() -> bool:
        async with engine.connect() as connection:
            return bool(await connection.scalar(query))

    await eventually(a_lock_is_waited_for)
