"""An operator repairs what Kafka refused: it is published in its place, or is withheld."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text

from chassis.correlation import new_id
from chassis.domain import InvalidFields
from chassis.operations import context as context_module
from chassis.operations import outbox as rows_set_aside
from chassis.operations.context import ServiceRuntime
from chassis.operations.outbox import (
    NotSetAside,
    OneRow,
    OutboxBody,
    OutboxSearch,
    PayloadEdit,
    WholeRowBody,
)
from chassis.persistence.database import Database
from chassis.persistence.outbox import Outbox
from chassis.settings import ServiceSettings
from chassis.testing import eventually
from contracts.envelope import decode, event_in
from contracts.operations import OutboxRowDiscardedV1, OutboxRowEditedV1, OutboxRowReleasedV1
from contracts.topics import Topic
from contracts.users import UsersEventWithheldV1, UserSignedUpV1
from tests.integration.chassis.path import (
    PathWork,
    count,
    create_topic,
    rows,
    settings_for,
    utc_now,
)
from tests.integration.chassis.publishing.test_relay import (
    append,
    in_order,
    published,
    relaying,
    until_empty,
    write_events,
)

from .operating import BY_ADA, acts_of, asking, runtime_of, service_of, topic_with_withheld

TOO_LARGE = "x" * 30_000


class SetAside:
    """What an operator does with the rows that were set aside."""

    def __init__(self, runtime: ServiceRuntime[ServiceSettings, PathWork]) -> None:
        self._runtime = runtime

    async def page(self, **search: Any) -> OutboxBody:
        return await rows_set_aside.page(self._runtime, OutboxSearch(**search))

    async def show(self, id_: UUID) -> WholeRowBody:
        return await rows_set_aside.show(self._runtime, OneRow(event_id=id_))

    async def edit(self, id_: UUID, payload: dict[str, Any]) -> None:
        edit = PayloadEdit(event_id=id_, payload=payload)
        await rows_set_aside.edit(self._runtime, edit, BY_ADA)

    async def release(self, id_: UUID) -> None:
        await rows_set_aside.release(self._runtime, OneRow(event_id=id_), BY_ADA)

    async def discard(self, id_: UUID) -> None:
        await rows_set_aside.discard(self._runtime, OneRow(event_id=id_), BY_ADA)


@pytest.fixture
def topic() -> Topic:
    return topic_with_withheld(1)


@pytest.fixture
def runtime(
    database: str, engine: Database, topic: Topic
) -> ServiceRuntime[ServiceSettings, PathWork]:
    """A service that reaches its database, but not Kafka."""
    return runtime_of(service_of(topic), settings_for(database, "127.0.0.1:1"), engine)


@pytest.fixture
def set_aside(runtime: ServiceRuntime[ServiceSettings, PathWork]) -> SetAside:
    return SetAside(runtime)


async def refuse(
    engine: Database,
    topic: Topic,
    *events: tuple[UUID, int],
    name: str = "ada",
    versions: Mapping[int, int] | None = None,
) -> list[UUID]:
    """Write these events as if Kafka had refused them; return their ids."""
    outbox = Outbox("/test", utc_now)
    for subject, sequence in events:
        append(outbox, topic, subject, sequence, name, versions)
    async with engine.begin() as connection:
        await outbox.flush(connection)
        found = await connection.execute(
            text(
                "WITH moved AS (DELETE FROM outbox RETURNING *) INSERT INTO outbox_set_aside"
                " SELECT moved.*, 'MessageSizeTooLargeError', 'too large', now() FROM moved"
                " RETURNING position, id"
            )
        )
        return [row.id for row in sorted(found)]


async def payload_of(set_aside: SetAside, id_: UUID, **data: Any) -> dict[str, Any]:
    """Return what is set aside, with other data."""
    payload = (await set_aside.show(id_)).payload
    return payload | {"data": payload["data"] | data}


async def until_set_aside(database: str) -> UUID:
    async def is_there() -> bool:
        return await count(database, "outbox_set_aside") == 1

    await eventually(is_there)
    found = await rows(database, "SELECT id FROM outbox_set_aside")
    return UUID(str(found[0]["id"]))


class TestLooking:
    async def test_shows_what_waits_and_what_was_refused_page_by_page(
        self, engine: Database, topic: Topic, set_aside: SetAside
    ) -> None:
        ada, ben = uuid4(), uuid4()
        ids = await refuse(engine, topic, (ada, 1), (ben, 1), (ben, 2))
        async with engine.begin() as connection:
            await write_events(connection, topic, (ada, 2), (ada, 3))

        first = await set_aside.page(limit=2)
        second = await set_aside.page(limit=2, after=first.next or 0)

        assert (first.waiting, second.next) == (2, None)
        assert first.oldest_waiting_since is not None
        assert [each.id for each in (*first.set_aside, *second.set_aside)] == ids
        assert first.set_aside[0].error_code == "MessageSizeTooLargeError"

    async def test_finds_by_topic_and_subject(
        self, engine: Database, topic: Topic, set_aside: SetAside
    ) -> None:
        ada = uuid4()
        of_ada, *_ = await refuse(engine, topic, (ada, 1), (uuid4(), 1))

        by_subject = await set_aside.page(topic=topic.name, subject=str(ada))
        by_another_topic = await set_aside.page(topic="another")

        assert [each.id for each in by_subject.set_aside] == [of_ada]
        assert by_another_topic.set_aside == []

    async def test_of_an_empty_outbox_finds_nothing(self, set_aside: SetAside) -> None:
        page = await set_aside.page()

        assert (page.waiting, page.oldest_waiting_since, page.set_aside) == (0, None, [])


class TestEditing:
    async def test_keeps_the_original_payload_however_often(
        self, database: str, engine: Database, topic: Topic, set_aside: SetAside
    ) -> None:
        [id_] = await refuse(engine, topic, (uuid4(), 1), name=TOO_LARGE)

        for name in ("bea", "cleo"):
            await set_aside.edit(id_, await payload_of(set_aside, id_, username=name))

        row = await set_aside.show(id_)
        assert (row.edited, row.payload["data"]["username"]) == (True, "cleo")
        assert row.original_payload is not None
        assert row.original_payload["data"]["username"] == TOO_LARGE
        act = OutboxRowEditedV1.event_type
        assert await acts_of(database) == [(act, str(id_), 1), (act, str(id_), 2)]
        found = await rows(database, "SELECT payload FROM outbox ORDER BY position")
        first, last = (decode(each["payload"]).data for each in found)
        assert first["replaced_sha256"] != first["payload_sha256"] == last["replaced_sha256"]
        (kept,) = await rows(database, "SELECT payload FROM outbox_set_aside")
        assert last["payload"] == kept["payload"].decode()

    async def test_keeps_the_versions_that_it_names(
        self, engine: Database, topic: Topic, set_aside: SetAside
    ) -> None:
        [id_] = await refuse(engine, topic, (uuid4(), 1), versions={1: 1, 2: 2})

        await set_aside.edit(id_, await payload_of(set_aside, id_, username="bea"))

        row = await set_aside.show(id_)
        assert row.payload["data"]["username"] == "bea"
        assert row.payload["versions"] == "v1:0000000001 v2:0000000002"

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"specversion": "2.0"}, "not-an-event"),
            ({"id": str(new_id())}, "another-event"),
            ({"source": "/other"}, "another-event"),
            ({"subject": str(uuid4())}, "another-event"),
            ({"sequence": "0000000002"}, "another-event"),
            ({"type": "users.user-signed-up.v2"}, "another-event"),
            ({"versions": "v1:0000000001 v2:0000000002"}, "another-event"),
            ({"data": {"username": 1}}, "wrong-data"),
        ],
    )
    async def test_to_what_is_not_the_same_event_is_refused(
        self,
        database: str,
        engine: Database,
        topic: Topic,
        set_aside: SetAside,
        changes: Mapping[str, Any],
        code: str,
    ) -> None:
        [id_] = await refuse(engine, topic, (uuid4(), 1))
        before = await set_aside.show(id_)

        with pytest.raises(InvalidFields) as refused:
            await set_aside.edit(id_, {**before.payload, **changes})

        assert [each.code for each in refused.value.broken] == [code]
        assert await set_aside.show(id_) == before
        assert await acts_of(database) == []

    async def test_to_what_kafka_would_refuse_again_is_refused(
        self, database: str, engine: Database
    ) -> None:
        small = replace(topic_with_withheld(1), max_message_bytes=700)
        set_aside = SetAside(
            runtime_of(service_of(small), settings_for(database, "127.0.0.1:1"), engine)
        )
        [id_] = await refuse(engine, small, (uuid4(), 1))

        with pytest.raises(InvalidFields) as refused:
            await set_aside.edit(id_, await payload_of(set_aside, id_, username="b" * 50))

        assert [each.code for each in refused.value.broken] == ["too-large"]


class TestReleasing:
    async def test_what_was_edited_is_published_in_its_place_before_its_aggregates_later_rows(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        service = service_of(topic)
        await create_topic(kafka, topic, **{"max.message.bytes": "20000"})
        await create_topic(kafka, service.operations_topic)
        settings, ada = settings_for(database, kafka), uuid4()
        outbox = Outbox("/test", utc_now)
        for number in (1, 2, 3):
            append(outbox, topic, ada, number, TOO_LARGE if number == 2 else "ada")
        async with engine.begin() as connection:
            await outbox.flush(connection)

        async with relaying(settings) as relay:
            set_aside = SetAside(runtime_of(service, settings, engine, relay.wake))
            id_ = await until_set_aside(database)
            async with engine.begin() as connection:
                await write_events(connection, topic, (ada, 4))

            await set_aside.edit(id_, await payload_of(set_aside, id_, username="bea"))
            await set_aside.release(id_)

            await until_empty(database)

        found = await published(kafka, topic)
        assert in_order(found) == {str(ada): [1, 2, 3, 4]}
        [edited] = [each for each in found if each.sequence == 2]
        assert event_in(decode(edited.value), UserSignedUpV1).username == "bea"
        assert await count(database, "outbox_set_aside") == 0
        acts = [decode(each.value) for each in await published(kafka, service.operations_topic)]
        assert [each.type for each in acts] == [
            OutboxRowEditedV1.event_type,
            OutboxRowReleasedV1.event_type,
        ]
        assert event_in(acts[1], OutboxRowReleasedV1) == OutboxRowReleasedV1(
            by=BY_ADA.by,
            why=BY_ADA.why,
            topic=topic.name,
            row_subject=str(ada),
            row_sequence=2,
            row_type=UserSignedUpV1.event_type,
        )

    async def test_by_two_at_once_happens_once(
        self, database: str, engine: Database, topic: Topic, set_aside: SetAside
    ) -> None:
        [id_] = await refuse(engine, topic, (uuid4(), 1))

        done = await asyncio.gather(
            *(set_aside.release(id_) for _ in range(5)), return_exceptions=True
        )

        assert [each for each in done if not isinstance(each, NotSetAside)] == [None]
        assert await acts_of(database) == [(OutboxRowReleasedV1.event_type, str(id_), 1)]
        assert await count(database, "outbox") == 2

    async def test_is_done_whole_or_not_at_all(
        self,
        database: str,
        engine: Database,
        topic: Topic,
        set_aside: SetAside,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        [id_] = await refuse(engine, topic, (uuid4(), 1))

        async def fail(name: str) -> None:
            if name == "operations.before-commit":
                raise LookupError

        monkeypatch.setattr(context_module, "failpoint", fail)
        with pytest.raises(LookupError):
            await set_aside.release(id_)

        assert await count(database, "outbox") == 0
        assert (await set_aside.show(id_)).id == id_


class TestDiscarding:
    async def test_publishes_a_withheld_event_in_its_place(
        self, database: str, engine: Database, kafka: str, topic: Topic
    ) -> None:
        service = service_of(topic)
        await create_topic(kafka, topic, **{"max.message.bytes": "20000"})
        await create_topic(kafka, service.operations_topic)
        settings, ada = settings_for(database, kafka), uuid4()
        outbox = Outbox("/test", utc_now)
        for number in (1, 2, 3):
            append(outbox, topic, ada, number, TOO_LARGE if number == 2 else "ada")
        async with engine.begin() as connection:
            await outbox.flush(connection)

        async with relaying(settings) as relay:
            id_ = await until_set_aside(database)
            set_aside = SetAside(runtime_of(service, settings, engine, relay.wake))

            await set_aside.discard(id_)

            await until_empty(database)

        found = await published(kafka, topic)
        assert in_order(found) == {str(ada): [1, 2, 3]}
        [instead] = [decode(each.value) for each in found if each.sequence == 2]
        assert (instead.subject, instead.source) == (str(ada), "/test")
        assert event_in(instead, UsersEventWithheldV1) == UsersEventWithheldV1(
            withheld_id=id_, withheld_type=UserSignedUpV1.event_type
        )
        [act] = [decode(each.value) for each in await published(kafka, service.operations_topic)]
        assert act.type == OutboxRowDiscardedV1.event_type
        assert act.subject == str(id_)


class TestOverHttp:
    async def test_a_row_is_listed_edited_and_released(
        self,
        database: str,
        engine: Database,
        topic: Topic,
        runtime: ServiceRuntime[ServiceSettings, PathWork],
        set_aside: SetAside,
    ) -> None:
        [id_] = await refuse(engine, topic, (uuid4(), 1), name=TOO_LARGE)
        payload = await payload_of(set_aside, id_, username="bea")
        async with asking(runtime) as client:
            listed = await client.get("/ops/outbox")
            edited = await client.put(
                f"/ops/outbox/{id_}/payload", json={"why": "too large", "payload": payload}
            )
            shown = await client.get(f"/ops/outbox/{id_}")
            released = await client.post(f"/ops/outbox/{id_}/release", json={"why": "repaired"})

        assert [each["id"] for each in listed.json()["set_aside"]] == [str(id_)]
        assert "payload" not in listed.json()["set_aside"][0]
        assert (edited.status_code, released.status_code) == (204, 204)
        assert shown.json()["payload"] == payload
        found = await rows(database, "SELECT payload FROM outbox ORDER BY position LIMIT 1")
        assert orjson.loads(found[0]["payload"]) == payload

    async def test_a_row_is_discarded(
        self,
        database: str,
        engine: Database,
        topic: Topic,
        runtime: ServiceRuntime[ServiceSettings, PathWork],
    ) -> None:
        [id_] = await refuse(engine, topic, (uuid4(), 1))

        async with asking(runtime) as client:
            done = await client.post(f"/ops/outbox/{id_}/discard", json={"why": "not wanted"})
            again = await client.post(f"/ops/outbox/{id_}/discard", json={"why": "not wanted"})

        assert done.status_code == 204
        assert (again.status_code, again.json()["code"]) == (404, "not-set-aside")
        assert await acts_of(database) == [(OutboxRowDiscardedV1.event_type, str(id_), 1)]

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/ops/outbox", None),
            ("GET", f"/ops/outbox/{UUID(int=1)}", None),
            ("PUT", f"/ops/outbox/{UUID(int=1)}/payload", {"why": "x", "payload": {}}),
            ("POST", f"/ops/outbox/{UUID(int=1)}/release", {"why": "x"}),
            ("POST", f"/ops/outbox/{UUID(int=1)}/discard", {"why": "x"}),
        ],
    )
    async def test_only_an_operator_may(
        self,
        runtime: ServiceRuntime[ServiceSettings, PathWork],
        method: str,
        path: str,
        body: Any,
    ) -> None:
        async with asking(runtime) as client:
            by_user = await client.request(method, path, json=body, headers={"role": "user"})
            by_stranger = await client.request(method, path, json=body, headers={"role": "none"})

        assert (by_user.status_code, by_stranger.status_code) == (403, 401)

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("release", {}),
            ("release", {"why": ""}),
            ("release", {"why": "a\nb"}),
            ("release", {"why": "x", "by": "another"}),
            ("discard", {"why": "x" * 1_001}),
        ],
    )
    async def test_an_act_without_a_reason_is_refused(
        self, runtime: ServiceRuntime[ServiceSettings, PathWork], path: str, body: Any
    ) -> None:
        async with asking(runtime) as client:
            answer = await client.post(f"/ops/outbox/{UUID(int=1)}/{path}", json=body)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")

    async def test_a_row_of_an_unknown_topic_can_only_be_released(
        self, engine: Database, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        [id_] = await refuse(engine, topic_with_withheld(), (uuid4(), 1))

        async with asking(runtime) as client:
            discarded = await client.post(f"/ops/outbox/{id_}/discard", json={"why": "x"})
            released = await client.post(f"/ops/outbox/{id_}/release", json={"why": "x"})

        assert (discarded.status_code, discarded.json()["code"]) == (409, "not-in-catalogue")
        assert released.status_code == 204
