"""Searching records over HTTP, on PostgreSQL."""

import base64
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text

from audit_service import queries
from audit_service.http import routes
from audit_service.numbers import RecordNumbers
from audit_service.queries import Records, RecordSearch
from audit_service.settings import AuditSettings
from chassis.correlation import new_id
from chassis.persistence.database import Database
from chassis.web.app import create_app
from chassis.web.auth import OPERATOR, NotAuthenticated, OperatorsOnly, Principal
from chassis.web.health import Health
from tests.integration.audit_service.evidence import RECORDED_AT, keep_chunk
from tests.integration.explained import pages_read, plan_of
from tests.unit.audit_service.making import OCCURRED_AT, bytes_record, event, numbered, record


async def an_operator_asks() -> Principal:
    return Principal(UUID(int=1), frozenset({OPERATOR}))


def app(engine: Database, operator: Any = an_operator_asks) -> FastAPI:
    settings = AuditSettings(
        database_url=SecretStr("postgresql://user@127.0.0.1:1/nothing"),
        jwks_url="http://127.0.0.1:1/jwks.json",
        idempotency_secret=SecretStr("s" * 32),
    )
    return create_app(
        title="Audit",
        description="For tests.",
        version="1",
        settings=settings,
        routers=[routes(Records(engine), operator)],
        health=Health(),
    )


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://audit")


@pytest.fixture
async def client(engine: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app(engine)) as client:
        yield client


async def offsets(client: httpx.AsyncClient, **search: object) -> list[int]:
    response = await client.get("/audit/events", params={k: str(v) for k, v in search.items()})
    assert response.status_code == 200, response.text
    return [each["offset"] for each in response.json()["events"]]


def at(minute: int) -> datetime:
    return OCCURRED_AT + timedelta(minutes=minute)


# Later than all others, of a common topic and source.
ROWS_OF_20_KINDS = """
    INSERT INTO records (topic, partition, "offset", headers, payload, sha256, recorded_at,
        event_id, source, type, subject, occurred_at, sequence, correlation_id, verdict, altered)
    SELECT 'users.user', n % 8, n / 8, '[]', decode(repeat('78', 600), 'hex'), '', now(),
        gen_random_uuid(), '/users', 'common.' || n % 20, 's', now() + n * interval '1 s', 1, 'c',
        'next', false
    FROM generate_series(1, :number) AS n
"""


async def analyze(engine: Database) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE records"))


async def explained(engine: Database, search: RecordSearch, how: str = "COSTS") -> list[str]:
    """Return the lines of the plan of a search."""
    async with engine.connect() as connection:
        return await plan_of(connection, *queries._query(search), how=how)


class TestASearch:
    async def test_returns_the_newest_records_first(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        events = [event(occurred_at=at(minute)) for minute in (1, 3, 2, 2)]
        await keep_chunk(engine, *numbered(events))
        assert await offsets(client) == [1, 3, 2, 0]

    async def test_returns_envelope_and_kafka_position_of_each_record(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        id_, subject = new_id(), str(uuid4())
        await keep_chunk(engine, record(event(id_=id_, subject=subject), 5, partition=2))
        response = await client.get("/audit/events")
        (found,) = response.json()["events"]
        assert response.json()["next"] is None
        assert found.pop("sha256")
        assert found.pop("traceparent")
        assert found == {
            "id": 1,
            "topic": "users.user",
            "partition": 2,
            "offset": 5,
            "recorded_at": "2026-01-02T03:04:06Z",
            "valid": True,
            "invalid_reason": None,
            "event_id": str(id_),
            "source": "/users",
            "type": "users.user-signed-up.v1",
            "subject": subject,
            "occurred_at": "2026-01-02T03:04:05.678901Z",
            "sequence": 1,
            "correlation_id": "c-1",
            "causation_id": "r-1",
            "verdict": "next",
            "altered": False,
            "client_correlation_id": None,
        }

    async def test_is_narrowed_by_each_filter(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        id_, subject = new_id(), str(uuid4())
        await keep_chunk(
            engine,
            record(event(), 0),
            record(event(subject=subject), 1),
            record(event(source="/accounts"), 2),
            record(event(correlation_id="c-2"), 3),
            record(event(id_=id_), 4),
            bytes_record(b"no event", 5),
        )
        await keep_chunk(engine, record(event(), 6, topic="users.task"))
        assert await offsets(client, subject=subject) == [1]
        assert await offsets(client, source="/accounts") == [2]
        assert await offsets(client, correlation_id="c-2") == [3]
        assert await offsets(client, event_id=id_) == [4]
        assert await offsets(client, valid="false") == [5]
        assert await offsets(client, valid="true") == [6, 4, 3, 2, 1, 0]
        assert await offsets(client, topic="users.task") == [6]
        assert await offsets(client, type="users.user-signed-up.v1") == [6, 4, 3, 2, 1, 0]
        assert await offsets(client, type="users.user-signed-up") == []

    async def test_finds_what_a_client_calls_its_request_whoever_else_calls_theirs_so(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        subject, own = str(uuid4()), "order-17"
        await keep_chunk(
            engine,
            record(event(), 0),
            record(event(client_correlation_id=own, correlation_id="c-2", subject=subject), 1),
            record(event(client_correlation_id=own, correlation_id="c-3"), 2),
            record(event(client_correlation_id="no id"), 3),
            record(event(client_correlation_id="x" * 129), 4),
        )
        response = await client.get("/audit/events", params={"client_correlation_id": own})
        assert [
            (each["correlation_id"], each["client_correlation_id"])
            for each in response.json()["events"]
        ] == [("c-3", own), ("c-2", own)]
        assert await offsets(client, client_correlation_id=own, subject=subject) == [1]
        assert await offsets(client, client_correlation_id=own, correlation_id="c-3") == [2]
        assert await offsets(client, correlation_id=own) == []
        assert await offsets(client, client_correlation_id="no id") == []
        assert len(await offsets(client)) == 5

    async def test_finds_what_is_no_event_by_its_topic_too(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        await keep_chunk(engine, record(event(), 0), bytes_record(b"no event", 1))
        await keep_chunk(engine, record(event(source="/others"), 2, topic="users.task"))
        assert await offsets(client, topic="users.user") == [1, 0]
        assert await offsets(client, topic="users.user", valid="false") == [1]
        assert await offsets(client, topic="users.task", valid="false") == []
        assert await offsets(client, topic="users.user", valid="true") == [0]
        assert await offsets(client, source="/others", topic="users.user") == []
        assert await offsets(client, type="users.user-signed-up.v1", source="/others") == [2]
        assert await offsets(client, type="users.user-signed-up.v1", valid="false") == []

    async def test_finds_records_that_match_all_filters(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        subject = str(uuid4())
        await keep_chunk(
            engine,
            record(event(subject=subject), 0),
            record(event(subject=subject, sequence=2, source="/accounts"), 1),
            record(event(source="/accounts"), 2),
        )
        assert await offsets(client, subject=subject, source="/accounts", valid="true") == [1]
        assert await offsets(client, subject=subject, topic="users.task") == []

    @pytest.mark.parametrize("filters", [{}, {"source": "/users"}])
    async def test_includes_from_and_excludes_to(
        self, engine: Database, client: httpx.AsyncClient, filters: dict[str, str]
    ) -> None:
        events = [event(occurred_at=at(minute)) for minute in range(5)]
        await keep_chunk(engine, *numbered(events))
        between = {"from": at(1).isoformat(), "to": at(3).isoformat()}
        assert await offsets(client, **filters, **between) == [2, 1]
        assert await offsets(client, **filters, **{"from": at(3).isoformat()}) == [4, 3]
        assert await offsets(client, **filters, to=at(1).isoformat()) == [0]

    async def test_finds_a_record_that_is_no_event_by_the_time_of_its_recording(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        await keep_chunk(engine, bytes_record(b"no event"))
        response = await client.get("/audit/events", params={"from": RECORDED_AT.isoformat()})
        (found,) = response.json()["events"]
        assert (found["valid"], found["occurred_at"], found["event_id"]) == (False, None, None)

    async def test_finds_the_first_and_the_last_time_that_python_has(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        first = datetime(1, 1, 1, tzinfo=UTC)
        last = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
        await keep_chunk(engine, *numbered([event(occurred_at=first), event(occurred_at=last)]))
        page = (await client.get("/audit/events", params={"limit": 1})).json()
        assert page["events"][0]["occurred_at"] == "9999-12-31T23:59:59.999999Z"
        page = (await client.get("/audit/events", params={"after": page["next"]})).json()
        assert page["events"][0]["occurred_at"] == "0001-01-01T00:00:00Z"

    @pytest.mark.parametrize(
        "search",
        [
            "subjekt=a",
            "subject=",
            "subject=a%00b",
            f"subject={'x' * 256}",
            "event_id=7",
            "valid=perhaps",
            "from=yesterday",
            "from=0001-01-01T00:00:00%2B14:00",
            "limit=0",
            "limit=201",
            "after=nonsense",
            f"after={'A' * 65}",
        ],
    )
    async def test_with_an_invalid_parameter_is_refused(
        self, client: httpx.AsyncClient, search: str
    ) -> None:
        response = await client.get(f"/audit/events?{search}")
        assert response.status_code == 422
        (problem,) = response.json()["errors"]
        assert problem["field"] == search.partition("=")[0]

    @pytest.mark.parametrize(
        ("search", "index"),
        [
            (RecordSearch(), "records_occurred_at_position_idx"),
            (RecordSearch(subject="s"), "records_subject_occurred_at_position_idx"),
            (RecordSearch(correlation_id="c-1"), "records_correlation_id_occurred_at_position_idx"),
            (
                RecordSearch(client_correlation_id="order-17"),
                "records_client_correlation_id_occurred_at_position_idx",
            ),
            (RecordSearch(type="users.user-signed-up.v1"), "records_kind_idx"),
            (RecordSearch(source="/users"), "records_kind_idx"),
            (RecordSearch(topic="users.user"), "records_kind_idx"),
            (RecordSearch(topic="users.user", valid=True), "records_kind_idx"),
            (RecordSearch(valid=False), "records_kind_idx"),
            (RecordSearch(event_id=UUID(int=1)), "records_event_id_source_sha256_key"),
        ],
    )
    async def test_uses_the_index_of_its_filter(
        self, engine: Database, search: RecordSearch, index: str
    ) -> None:
        events = [event(occurred_at=at(minute)) for minute in range(500)]
        await keep_chunk(engine, *numbered(events), bytes_record(b"no event", 500))
        await analyze(engine)
        plan = await explained(engine, search)
        assert index in "\n".join(plan)
        assert "Seq Scan" not in "\n".join(plan)

    @pytest.mark.parametrize("analyzed", ["never", "before", "after"])
    async def test_for_what_is_rare_and_old_reads_a_few_pages_whatever_came_since(
        self, engine: Database, analyzed: str
    ) -> None:
        rare = event(source="/rare")
        payload = json.dumps(json.loads(rare.payload) | {"type": "rare.v1"}).encode()
        await keep_chunk(engine, bytes_record(b"no event", 1))
        await keep_chunk(engine, replace(bytes_record(payload), topic="users.task"))
        if analyzed == "before":
            await analyze(engine)
        async with engine.begin() as connection:
            await connection.execute(text(ROWS_OF_20_KINDS), {"number": 20_000})
        if analyzed == "after":
            await analyze(engine)

        searches = [
            RecordSearch(type="rare.v1"),
            RecordSearch(type="common.7"),
            RecordSearch(topic="users.task"),
            RecordSearch(source="/rare"),
            RecordSearch(topic="users.task", valid=True),
            RecordSearch(valid=False),
        ]
        plans = [await explained(engine, each, "ANALYZE, BUFFERS") for each in searches]

        # Of 20,000 rows on some 2,500 pages.
        assert [pages_read(plan) for plan in plans if pages_read(plan) >= 300] == []


class TestPages:
    async def test_that_begin_with_a_cursor_of_an_earlier_release_continue(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        await keep_chunk(engine, *numbered([event(occurred_at=at(n)) for n in range(4)]))
        # What the release before had answered: the time and the position of the record at 2.
        microseconds = int(at(2).timestamp()) * 1_000_000 + at(2).microsecond
        cursor = base64.urlsafe_b64encode(struct.pack(">qq", microseconds, 3)).decode()
        for filters in ({}, {"topic": "users.user"}, {"type": "users.user-signed-up.v1"}):
            assert await offsets(client, after=cursor, **filters) == [1, 0]

    @pytest.mark.parametrize("filters", [{}, {"topic": "users.user"}, {"source": "/users"}])
    async def test_together_contain_every_record_once(
        self, engine: Database, client: httpx.AsyncClient, filters: dict[str, str]
    ) -> None:
        kinds = ("a.v1", "b.v1", "c.v1")
        events = [event(occurred_at=at(n // 3)) for n in range(10)]
        payloads = [
            json.dumps(json.loads(each.payload) | {"type": kinds[n % 3]}).encode()
            for n, each in enumerate(events)
        ]
        await keep_chunk(engine, *(bytes_record(each, n) for n, each in enumerate(payloads)))
        seen: list[int] = []
        after: dict[str, str] = {}
        for expected in (4, 4, 2):
            response = await client.get("/audit/events", params=filters | after | {"limit": "4"})
            page = response.json()
            assert len(page["events"]) == expected
            seen += [each["offset"] for each in page["events"]]
            after = {"after": page["next"]}
        assert after == {"after": None}
        assert seen == list(reversed(range(10)))

    async def test_are_the_same_if_records_are_added_in_between(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        await keep_chunk(engine, *numbered([event(occurred_at=at(n)) for n in range(4)]))
        first = (await client.get("/audit/events", params={"limit": 2})).json()
        await keep_chunk(engine, record(event(occurred_at=at(9)), 4))
        assert await offsets(client, after=first["next"]) == [1, 0]

    async def test_end_at_the_end_of_the_searched_times(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        await keep_chunk(engine, *numbered([event(occurred_at=at(n)) for n in range(4)]))
        first = (await client.get("/audit/events", params={"limit": 1})).json()
        assert await offsets(client, after=first["next"], to=at(2).isoformat()) == [1, 0]


class TestOneRecord:
    async def test_is_returned_with_its_bytes(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        delivered = record(event())
        await keep_chunk(engine, delivered)
        found = (await client.get("/audit/events/1")).json()
        assert base64.b64decode(found["payload_base64"]) == delivered.value
        assert base64.b64decode(found["key_base64"]) == delivered.key
        assert found["headers"][0] == ["content-type", "YXBwbGljYXRpb24vY2xvdWRldmVudHMranNvbg=="]
        assert found["event"] == json.loads(delivered.value or b"")
        assert found["number"] is None

    async def test_has_its_number_once_it_is_given(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        await keep_chunk(engine, *numbered([event(), event()]))
        await RecordNumbers(engine).number()
        assert (await client.get("/audit/events/2")).json()["number"] == 2

    async def test_is_returned_byte_for_byte_whatever_numbers_its_json_has(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        payload = event().payload.replace(b'"data":{', b'"data":{"big":1e999,"one":1.0,"one":2,')
        await keep_chunk(engine, bytes_record(payload))
        response = await client.get("/audit/events/1")
        assert b'"event":' + payload in response.content

    async def test_that_is_no_event_is_returned_as_bytes(
        self, engine: Database, client: httpx.AsyncClient
    ) -> None:
        await keep_chunk(engine, bytes_record(b"\x00\xff", 0, headers=[("n\0", None)]))
        await keep_chunk(engine, bytes_record(None, 1))
        no_json = (await client.get("/audit/events/1")).json()
        assert (no_json["event"], no_json["payload_base64"]) == (None, "AP8=")
        assert no_json["headers"] == [["n\0", None]]
        tombstone = (await client.get("/audit/events/2")).json()
        assert (tombstone["payload_base64"], tombstone["key_base64"]) == (None, None)

    async def test_that_does_not_exist_is_not_found(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/audit/events/1")
        assert (response.status_code, response.json()["code"]) == (404, "no-such-record")

    @pytest.mark.parametrize(
        "id_", ["0", "-1", "9223372036854775808", "x", "00000000-0000-7000-8000-000000000000"]
    )
    async def test_under_an_impossible_id_is_refused(
        self, client: httpx.AsyncClient, id_: str
    ) -> None:
        assert (await client.get(f"/audit/events/{id_}")).status_code == 422


class TestAUserWhoIsNoOperator:
    @pytest.mark.parametrize("path", ["/audit/events", "/audit/events/1"])
    @pytest.mark.parametrize(
        ("refusal", "status"), [(NotAuthenticated("no"), 401), (OperatorsOnly("no"), 403)]
    )
    async def test_reads_nothing(
        self, engine: Database, path: str, refusal: Exception, status: int
    ) -> None:
        async def refuse() -> Principal:
            raise refusal

        await keep_chunk(engine, record(event()))
        async with client_of(app(engine, refuse)) as client:
            assert (await client.get(path)).status_code == status
