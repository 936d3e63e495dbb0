"""What is kept of what comes, on PostgreSQL."""

import asyncio
import base64
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
from sqlalchemy import Row, text
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.records import AuditWork, keep
from chassis.correlation import new_id
from chassis.persistence.database import create_engine
from chassis.testing import FakeRecord, eventually
from contracts.envelope import EncodedEvent
from tests.integration.audit_service.evidence import RECORDED_AT, all_kept, keep_chunk
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
    async def test_is_kept_as_it_came_with_its_envelope_in_columns(
        self, engine: AsyncEngine
    ) -> None:
        subject, id_ = str(uuid4()), new_id()
        came = record(event(subject=subject, id_=id_), offset=7, partition=3)
        await keep_chunk(engine, came)
        (row,) = await all_kept(engine)
        assert (row.topic, row.partition, row.offset) == ("users.user", 3, 7)
        assert (row.key, row.payload) == (subject.encode(), came.value)
        assert row.sha256 == hashlib.sha256(came.value or b"").digest()
        assert row.headers[1] == ["type", "dXNlcnMudXNlci1zaWduZWQtdXAudjE="]
        assert (row.event_id, row.source, row.subject) == (id_, "/users", subject)
        assert (row.type, row.sequence) == ("users.user-signed-up.v1", 1)
        assert (row.occurred_at, row.recorded_at) == (OCCURRED_AT, RECORDED_AT)
        assert (row.correlation_id, row.causation_id) == ("c-1", "r-1")
        assert row.traceparent == TRACEPARENT
        assert (row.invalid_reason, row.verdict, row.altered) == (None, "next", False)

    async def test_of_an_unknown_type_without_headers_or_key_is_an_event_too(
        self, engine: AsyncEngine
    ) -> None:
        payload = with_attributes(event(), type="somebody.did-something.v9", data={"any": "thing"})
        await keep_chunk(engine, bytes_record(payload))
        (row,) = await all_kept(engine)
        assert (row.type, row.invalid_reason) == ("somebody.did-something.v9", None)
        assert (row.key, row.headers) == (None, [])

    async def test_that_comes_again_is_dropped_and_counted(self, engine: AsyncEngine) -> None:
        same = event()
        dropped = outcomes("dropped")
        await keep_chunk(engine, record(same, 0), record(same, 1))
        await keep_chunk(engine, record(same, 2), record(event(), 3))
        assert [row.offset for row in await all_kept(engine)] == [0, 3]
        assert outcomes("dropped") - dropped == 2

    async def test_dropped_leaves_no_hole_in_the_positions(self, engine: AsyncEngine) -> None:
        same = event()
        await keep_chunk(engine, record(same, 0))
        await keep_chunk(engine, record(same, 1), record(event(), 2), record(same, 3))
        await keep_chunk(engine, record(event(), 4))
        assert [row.position for row in await all_kept(engine)] == [1, 2, 3]

    async def test_with_the_id_of_another_is_kept_and_reported(self, engine: AsyncEngine) -> None:
        id_, subject = new_id(), str(uuid4())
        before = outcomes("altered")
        await keep_chunk(engine, record(event(id_=id_, subject=subject), 0))
        with structlog.testing.capture_logs() as lines:
            await keep_chunk(
                engine,
                record(event(id_=id_, subject=subject, username="eve"), 1),
                record(event(id_=id_), 2),
            )
        assert [row.altered for row in await all_kept(engine)] == [False, True, True]
        assert outcomes("altered") - before == 2
        assert [reported(line) for line in lines] == [("record-altered", [1, 2])]

    async def test_with_the_id_of_one_from_elsewhere_is_another(self, engine: AsyncEngine) -> None:
        id_ = new_id()
        await keep_chunk(
            engine, record(event(id_=id_)), record(event(id_=id_, source="/accounts"), 1)
        )
        assert [row.altered for row in await all_kept(engine)] == [False, False]


class TestWhatIsNoEvent:
    @pytest.mark.parametrize("payload", NO_EVENTS.values(), ids=NO_EVENTS)
    async def test_is_kept_and_marked(self, engine: AsyncEngine, payload: bytes) -> None:
        before = outcomes("invalid")
        with structlog.testing.capture_logs() as lines:
            await keep_chunk(engine, bytes_record(payload), record(event(), 1))
        row, event_row = await all_kept(engine)
        assert (row.payload, row.sha256) == (payload, hashlib.sha256(payload).digest())
        assert row.invalid_reason
        assert (row.event_id, row.subject, row.verdict) == (None, None, None)
        assert row.occurred_at == RECORDED_AT
        assert event_row.invalid_reason is None
        assert outcomes("invalid") - before == 1
        assert [reported(line) for line in lines] == [("record-invalid", [0])]

    async def test_a_value_that_is_absent_is_not_one_that_is_empty(
        self, engine: AsyncEngine
    ) -> None:
        await keep_chunk(engine, bytes_record(None, 0, key=b"k"), bytes_record(b"", 1))
        assert [row.payload for row in await all_kept(engine)] == [None, b""]

    async def test_headers_alone_are_kept(self, engine: AsyncEngine) -> None:
        await keep_chunk(engine, bytes_record(None, headers=event().headers))
        (row,) = await all_kept(engine)
        assert row.invalid_reason == "no value"
        assert len(row.headers) == 6

    async def test_headers_of_another_event_make_it_none(self, engine: AsyncEngine) -> None:
        await keep_chunk(engine, bytes_record(event().payload, headers=event().headers))
        (row,) = await all_kept(engine)
        assert row.invalid_reason == "headers: not those of the event in the value"

    async def test_is_dropped_when_it_comes_again_from_its_place(self, engine: AsyncEngine) -> None:
        await keep_chunk(engine, bytes_record(b"same", 4))
        await keep_chunk(engine, bytes_record(b"same", 4), bytes_record(b"same", 5))
        assert [row.offset for row in await all_kept(engine)] == [4, 5]

    async def test_is_reported_where_other_bytes_had_its_place(self, engine: AsyncEngine) -> None:
        await keep_chunk(engine, bytes_record(b"before", 4))
        await keep_chunk(engine, bytes_record(b"after", 4))
        assert [row.altered for row in await all_kept(engine)] == [False, True]


class TestAnySequence:
    async def test_without_a_gap_is_next(self, engine: AsyncEngine) -> None:
        assert await verdicts(engine, [1, 2], [3]) == ["next", "next", "next"]
        assert await missing(engine) == []

    async def test_that_does_not_begin_at_one_misses_the_first(self, engine: AsyncEngine) -> None:
        assert await verdicts(engine, [3]) == ["after-gap"]
        assert await missing(engine) == [1, 2]

    async def test_that_jumps_is_reported_and_what_is_missing_recorded(
        self, engine: AsyncEngine
    ) -> None:
        with structlog.testing.capture_logs() as lines:
            assert await verdicts(engine, [1], [4]) == ["next", "after-gap"]
        assert await missing(engine) == [2, 3]
        assert [reported(line) for line in lines] == [("record-after-gap", [1])]

    async def test_that_comes_late_closes_its_gap(self, engine: AsyncEngine) -> None:
        assert await verdicts(engine, [1, 4], [2]) == ["next", "after-gap", "late"]
        assert await missing(engine) == [3]

    async def test_used_again_later_is_another_history(self, engine: AsyncEngine) -> None:
        assert await verdicts(engine, [1, 2], [2]) == ["next", "next", "forked"]

    async def test_is_counted_for_each_subject_and_topic_alone(self, engine: AsyncEngine) -> None:
        subject = str(uuid4())
        await keep_chunk(engine, record(event(subject=subject)))
        await keep_chunk(engine, record(event(subject=subject), topic="users.task"))
        await keep_chunk(engine, record(event(), 1))
        assert [row.verdict for row in await all_kept(engine)] == ["next", "next", "next"]

    async def test_of_a_repeat_moves_nothing(self, engine: AsyncEngine) -> None:
        subject = str(uuid4())
        first, second = event(subject=subject), event(subject=subject, sequence=2)
        await keep_chunk(engine, *numbered([first, second]))
        await keep_chunk(engine, record(first, 2))
        await keep_chunk(engine, record(event(subject=subject, sequence=3), 3))
        assert [row.verdict for row in await all_kept(engine)] == ["next", "next", "next"]


class TestAChunk:
    async def test_of_500_takes_as_many_statements_as_one_of_2(self, engine: AsyncEngine) -> None:
        statements: list[str] = []

        def count(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            statements.append(statement)

        sqlalchemy_event.listen(engine.sync_engine, "before_cursor_execute", count)
        await keep_chunk(engine, *numbered([event() for _ in range(2)]))
        few = len(statements)
        await keep_chunk(engine, *numbered([event() for _ in range(500)], first_offset=2))
        assert len(statements) - few == few <= 5
        assert len(await all_kept(engine)) == 502

    async def test_keeps_the_order_of_its_records(self, engine: AsyncEngine) -> None:
        await keep_chunk(engine, *numbered([event() for _ in range(500)]))
        assert [row.offset for row in await all_kept(engine)] == list(range(500))

    async def test_that_fails_leaves_nothing(self, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await keep(AuditWork(connection, lambda: RECORDED_AT), [record(event())])
            await connection.rollback()
        assert await all_kept(engine) == []

    async def test_waits_for_another_with_the_same_event(self, engine: AsyncEngine) -> None:
        same = event()
        async with engine.begin() as ahead:
            await keep(AuditWork(ahead, lambda: RECORDED_AT), [record(same, partition=0)])
            behind = asyncio.create_task(keep_chunk(engine, record(same, partition=1)))
            await until_somebody_waits(engine)
        await behind
        assert [row.partition for row in await all_kept(engine)] == [0]

    async def test_fails_for_now_where_another_topic_brings_the_same_event(
        self, engine: AsyncEngine
    ) -> None:
        same = event()
        async with engine.begin() as ahead:
            await keep(AuditWork(ahead, lambda: RECORDED_AT), [record(same)])
            behind = asyncio.create_task(keep_chunk(engine, record(same, topic="users.task")))
            await until_somebody_waits(engine)
        with pytest.raises(Exception, match="records_event_id_source_sha256_key"):
            await behind
        await keep_chunk(engine, record(same, topic="users.task"))
        assert [row.topic for row in await all_kept(engine)] == ["users.user"]


AN_EVENT = b"(a new event)"
HEADERS = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.none() | st.binary()
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
def test_whatever_comes_is_kept_as_it_came(
    audit_database: str, came: list[tuple[bytes | None, bytes | None, list[tuple[str, Any]]]]
) -> None:
    topic = f"test.{uuid4().hex}"
    chunk = [
        FakeRecord(topic, 0, at, key, event().payload if value == AN_EVENT else value, headers)
        for at, (value, key, headers) in enumerate(came)
    ]

    async def keep_and_read() -> list[FakeRecord]:
        engine = create_engine(audit_database, pool_size=1, application_name="test")
        try:
            await keep_chunk(engine, *chunk)
            rows = await all_kept(engine)
        finally:
            await engine.dispose()
        return [
            FakeRecord(row.topic, row.partition, row.offset, row.key, row.payload, decoded(row))
            for row in rows
            if row.topic == topic
        ]

    assert asyncio.run(keep_and_read()) == chunk


def decoded(row: Row[Any]) -> list[tuple[str, Any]]:
    return [
        (name, None if value is None else base64.b64decode(value)) for name, value in row.headers
    ]


async def verdicts(engine: AsyncEngine, *chunks: Sequence[int]) -> list[str]:
    """Keep events of one subject with these sequences, and return what was made of them."""
    subject, offset = str(uuid4()), 0
    for chunk in chunks:
        events = [event(subject=subject, sequence=number) for number in chunk]
        await keep_chunk(engine, *numbered(events, offset))
        offset += len(chunk)
    return [row.verdict for row in await all_kept(engine)]


async def missing(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT sequence FROM inbox_missing WHERE subscriber = 'audit.keep' ORDER BY 1")
        )
        return list(found.scalars())


def outcomes(outcome: str) -> float:
    labels = {"topic": "users.user", "outcome": outcome}
    return REGISTRY.get_sample_value("audit_records_total", labels) or 0


def reported(line: MutableMapping[str, Any]) -> tuple[str, list[int]]:
    assert line["log_level"] == "warning"
    assert len(line["offsets"]) == line["count"]
    return line["event"], line["offsets"]


async def until_somebody_waits(engine: AsyncEngine) -> None:
    query = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    async def somebody_waits() -> bool:
        async with engine.connect() as connection:
            return bool(await connection.scalar(query))

    await eventually(somebody_waits)
