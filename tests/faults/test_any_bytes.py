"""Any bytes on a topic: each service's handlers, on its own tables, handle the good events."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis import migrations
from chassis.consuming import offsets
from chassis.consuming.processor import ChunkProcessor
from chassis.operations.context import Service
from chassis.persistence.database import Database
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of
from contracts.topics import Topic
from local_cluster.testing import DatabaseServer
from services import WITH_DATABASE
from tests.faults.bad_bytes import Headers, Json, bad_records, event, headers_of
from tests.integration.chassis.path import rows, utc_now

# With default settings: no setting matters here.
_SERVICES: Final[dict[str, Service[Any, Any]]] = {
    each.name: import_module(f"{each.package}.bootstrap").SERVICE for each in WITH_DATABASE
}

#: How many effects each good event has, in each of the example's services.
_EFFECTS: Final = {
    "users": "SELECT count(*) FROM tasks WHERE assignee_id::text = $1",
    "accounts": "SELECT count(*) FROM accounts WHERE user_id::text = $1",
    "notification": "SELECT count(*) FROM deliveries WHERE event_id::text = $2",
    "audit": "SELECT count(*) FROM records WHERE subject = $1 AND event_id::text = $2",
}
_EFFECTS_OF_ONE: Final = {"users": 2, "accounts": 1, "notification": 1, "audit": 1}

_partitions: Final = itertools.count()

# --- the records ----------------------------------------------------------------------------------

_NAMES: Final = ("content-type", "type", "id", "subject", "sequence", "traceparent", "ce_type", "")
_anything: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=5,
)
_headers: Final[st.SearchStrategy[Headers]] = st.lists(
    st.tuples(
        st.sampled_from(_NAMES) | st.text(max_size=5),
        st.none() | st.binary(max_size=40) | st.just(b"application/cloudevents+json"),
    ),
    max_size=6,
)

RawRecord = tuple[bytes | None, bytes | None, Headers]


@st.composite
def spoilt_events(draw: st.DrawFn, topic: Topic) -> RawRecord:
    """An event in which some parts are wrong, or none."""
    attributes: Json = event(topic, uuid4())
    before = headers_of(attributes)
    for part in draw(st.lists(st.sampled_from(("attributes", "data")), max_size=3)):
        spoilt = attributes if part == "attributes" else attributes.get("data")
        if not isinstance(spoilt, dict) or not spoilt:
            continue
        name = draw(st.sampled_from(sorted(spoilt)) | st.text(max_size=5))
        if draw(st.booleans()):
            spoilt[name] = draw(_anything)
        else:
            spoilt.pop(name, None)
    value = json.dumps(attributes).encode()
    if draw(st.booleans()):
        at, inserted = draw(st.integers(0, len(value))), draw(st.binary(max_size=3))
        value = value[:at] + inserted + value[at + draw(st.integers(0, 3)) :]
    headers = draw(st.sampled_from((before, [])) | _headers)
    return draw(st.none() | st.binary(max_size=40)), value, headers


def any_record(topic: Topic) -> st.SearchStrategy[RawRecord]:
    return st.one_of(
        st.tuples(
            st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=200), _headers
        ),
        spoilt_events(topic),
        st.deferred(
            lambda: st.sampled_from([(r.key, r.value, r.headers) for r in bad_records(topic)])
        ),
    )


# --- and their outcome ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(_SERVICES))
def service(
    request: pytest.FixtureRequest, postgres_server: DatabaseServer
) -> Iterator[tuple[str, str]]:
    """A service, and a database with its schema."""
    name: str = request.param
    url = postgres_server.create_database(f"any_bytes_{name}_{uuid4().hex[:8]}")
    asyncio.run(migrations.upgrade(f"{name}_service", url))
    yield name, url
    postgres_server.drop_database(url.rpartition("/")[2])


class TestAnyBytes:
    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(data=st.data())
    async def test_stop_no_consumer_and_good_events_among_them_are_handled(
        self, service: tuple[str, str], data: st.DataObject
    ) -> None:
        name, database = service
        ours = _SERVICES[name]
        known = ours.subscribers(ours.settings.model_construct())
        topic = data.draw(st.sampled_from([each.topic for each in known]), label="topic")
        subscribers = [each for each in known if each.topic is topic]
        records_drawn = data.draw(
            st.lists(any_record(topic), min_size=1, max_size=8), label="records"
        )
        good = [event(topic, uuid4()) for _ in range(len(records_drawn) + 1)]
        # Each drawn record is between two good ones.
        values: list[RawRecord] = [raw_record(good[0])]
        for drawn, one in zip(records_drawn, good[1:], strict=True):
            values += [drawn, raw_record(one)]
        partition = next(_partitions)
        records = [
            FakeRecord(topic.name, partition, offset, *value) for offset, value in enumerate(values)
        ]

        engine = Database(database, pool_size=5, application_name="test")
        try:
            async with engine.begin() as connection:
                await offsets.begin(
                    connection, subscribers, topic.name, {partition: (0, 0)}, utc_now
                )
            feed = FakeChunkSource()
            consumer = ChunkProcessor(topic, subscribers, engine, ours.open_work, utc_now)
            async with asyncio.timeout(60):
                await consumer.process(chunk_of(records), feed)
        finally:
            await engine.close()

        assert feed.done == len(records)
        assert consumer.trouble() is None
        for each in good if name in _EFFECTS else ():
            identity = UUID(each["subject"]), UUID(each["id"])
            assert await effects(database, name, *identity) == _EFFECTS_OF_ONE[name]
        await assert_parked_with_their_bytes(database, records, wanted=topic.events[0].event_type)
        if name == "audit":
            await assert_all_are_kept(database, records)


def raw_record(attributes: Json) -> RawRecord:
    return (
        str(attributes["subject"]).encode(),
        json.dumps(attributes).encode(),
        headers_of(attributes),
    )


async def effects(database: str, service: str, subject: UUID, event_id: UUID) -> int:
    query = _EFFECTS[service]
    named = [str(subject), str(event_id)]
    # A parameter that a query does not name has no type.
    given = [value for number, value in enumerate(named, 1) if f"${number}" in query]
    if "$1" not in query:
        query = query.replace("$2", "$1")
    return int((await rows(database, query, *given))[0]["count"])


async def assert_parked_with_their_bytes(
    database: str, records: list[FakeRecord], *, wanted: str
) -> None:
    """A parked record has its bytes, and is of a wanted type or of an unknown one."""
    family = wanted.rpartition(".v")[0]
    query = "SELECT * FROM parked WHERE topic = $1 AND partition = $2"
    for row in await rows(database, query, records[0].topic, records[0].partition):
        record = records[row["offset"]]
        assert (row["key"], row["payload"]) == (record.key, record.value)
        assert row["error_code"] in ("not-understood", "forked-history", "behind-parked"), row
        assert row["type"] is None or row["type"].rpartition(".v")[0] == family, row


async def assert_all_are_kept(database: str, records: list[FakeRecord]) -> None:
    """Audit parks nothing, and has the bytes of each record."""
    query = "SELECT sha256 FROM records WHERE topic = $1"
    kept = {row["sha256"] for row in await rows(database, query, records[0].topic)}
    for each in records:
        assert hashlib.sha256(each.value or b"").digest() in kept
    assert await rows(database, "SELECT 1 FROM parked") == []
