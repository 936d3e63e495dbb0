"""Operators read what was parked, put another payload in its place, or discard it."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from chassis.consuming.dead_letters import ParkReason, waiting
from chassis.consuming.subscribers import RecordSubscriber
from chassis.domain import InvalidFields
from chassis.operations import dead_letters
from chassis.operations.dead_letter_rows import NoSuchParkedEvent
from chassis.operations.dead_letters import ParkedFilter, ParkedSearch
from chassis.operations.payloads import NotEditable
from chassis.testing import FakeRecord
from contracts.envelope import decode
from contracts.operations import (
    MOST_PAYLOAD_BYTES,
    ParkedEventDiscardedV1,
    ParkedEventEditedV1,
)
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import (
    PathWork,
    UserSignedUpV2,
    in_both_versions,
    other_event,
    rows,
    schema,
    signed_up,
)
from tests.integration.chassis.service import TOPIC, NameIsTaken, records_of

from .operating import ADA, BY_ADA, acts_of, asking
from .parking import NAME, Shop, without_label

EDITED = "operations.parked-event-edited.v1"
DISCARDED = "operations.parked-event-discarded.v1"
RELEASED = "operations.parked-event-released.v1"


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with schema(database) as engine:
        yield Shop(database, engine)


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(shop.runtime) as client:
        yield client


def with_an_odd_name(subject: UUID, sequence: int) -> FakeRecord:
    """An event that breaks its schema."""
    (record,) = records_of(signed_up(subject, sequence))
    assert record.value is not None
    return replace(record, value=record.value.replace(b'"username":"ada"', b'"username":7'))


def json_of(record: FakeRecord, **changes: Any) -> dict[str, Any]:
    assert record.value is not None
    event: dict[str, Any] = json.loads(record.value)
    data = event["data"] | changes.pop("data", {})
    return event | {"data": data} | changes


async def acts(shop: Shop, type_: str) -> list[dict[str, Any]]:
    """Return the data of these acts."""
    query = "SELECT payload FROM outbox WHERE type = $1 ORDER BY position"
    found = await rows(shop.service.database, query, type_)
    return [decode(row["payload"]).data for row in found]


class TestLooking:
    async def test_finds_what_all_filters_find(self, shop: Shop) -> None:
        ada, bob = uuid4(), uuid4()
        await shop.parks(ada, 1, 2)
        await shop.comes(with_an_odd_name(bob, 1))

        async def offsets(**wanted: Any) -> list[int]:
            page = await dead_letters.page(shop.runtime, ParkedSearch(**wanted))
            return [each.offset for each in page.parked]

        assert await offsets() == [0, 1, 2]
        assert await offsets(subscriber=NAME, topic=TOPIC.name) == [0, 1, 2]
        assert await offsets(subscriber="test.two") == []
        assert await offsets(topic="test.two") == []
        assert await offsets(subject=str(ada)) == [0, 1]
        assert await offsets(reason=ParkReason.NOT_UNDERSTOOD) == [2]
        assert await offsets(error_code="name-is-taken") == [0]
        assert await offsets(type=UserSignedUpV1.event_type) == [0, 1, 2]
        assert await offsets(subject=str(ada), reason=ParkReason.BEHIND) == [1]

    async def test_goes_page_by_page(self, shop: Shop) -> None:
        await shop.parks(uuid4(), *range(1, 6))
        seen: list[int] = []
        after: UUID | None = None
        for expected in (2, 2, 1):
            page = await dead_letters.page(shop.runtime, ParkedSearch(after=after, limit=2))
            assert len(page.parked) == expected
            seen += [each.offset for each in page.parked]
            after = page.next

        assert after is None
        assert seen == [0, 1, 2, 3, 4]

    async def test_counts_by_reason_and_error(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1, 2, 3)
        await shop.parks(uuid4(), 1, 2)
        await shop.comes(without_label(uuid4(), 1))

        counted = await dead_letters.count(shop.runtime, ParkedFilter(subscriber=NAME))

        assert [(each.reason, each.error_code, each.events, each.subjects)
                for each in counted.counts] == [
            (ParkReason.BEHIND, "behind-parked", 3, 2),
            (ParkReason.FAILED, "name-is-taken", 2, 2),
            (ParkReason.NOT_UNDERSTOOD, "not-understood", 1, 0),
        ]  # fmt: skip

    async def test_counts_for_each_subscriber_what_waits(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1, 2, 3)

        async with shop.runtime.database.connect() as connection:
            assert await waiting(connection, {NAME, "test.two"}) == {NAME: 3, "test.two": 0}

    async def test_shows_an_event_with_everything_that_was_delivered(
        self, shop: Shop, client: httpx.AsyncClient
    ) -> None:
        ada = uuid4()
        event = signed_up(ada, 1)
        shop.faults.on = {1}
        await shop.comes(event)
        (id_,) = (await shop.ids()).values()

        shown = (await client.get(f"/ops/parked/{id_}")).json()

        assert shown["payload"] == event.payload.decode()
        assert (shown["key"], shown["edited_payload"]) == (str(ada), None)
        assert shown["headers"][0] == {
            "name": "content-type",
            "text": "application/cloudevents+json",
            "base64": None,
        }
        assert (shown["size_bytes"], shown["edited"]) == (len(event.payload), False)
        assert (shown["sequence"], shown["type"]) == (1, UserSignedUpV1.event_type)
        assert shown["tries"] == 1

    async def test_shows_in_base64_what_is_no_text(
        self, shop: Shop, client: httpx.AsyncClient
    ) -> None:
        headers = [("odd\0name", b"\xff"), ("none", None)]
        await shop.comes(
            FakeRecord(TOPIC.name, 0, 0, b"\xff", b"\0\xff", headers),
            FakeRecord(TOPIC.name, 0, 1, None, None, []),
        )
        ids = await shop.ids()

        odd = (await client.get(f"/ops/parked/{ids[0]}")).json()
        nothing = (await client.get(f"/ops/parked/{ids[1]}")).json()

        assert (odd["payload"], base64.b64decode(odd["payload_base64"])) == (None, b"\0\xff")
        assert (odd["key"], base64.b64decode(odd["key_base64"])) == (None, b"\xff")
        assert odd["headers"] == [
            {"name": "odd\0name", "text": None, "base64": "/w=="},
            {"name": "none", "text": None, "base64": None},
        ]
        assert (nothing["payload"], nothing["payload_base64"], nothing["size_bytes"]) == (
            None,
            None,
            None,
        )


class TestEditing:
    async def test_puts_another_payload_in_its_place_and_keeps_the_original(
        self, shop: Shop
    ) -> None:
        ada = uuid4()
        came = with_an_odd_name(ada, 1)
        await shop.comes(came, signed_up(ada, 2))
        ids = await shop.ids()

        await shop.edit(ids[0], json_of(came, data={"username": "ada"}))

        row = await shop.row(ids[0])
        assert row["payload"] == came.value
        assert len(json.loads(row["headers"])) == len(came.headers)
        sha256 = hashlib.sha256(row["edited_payload"]).hexdigest()
        (act,) = await acts(shop, EDITED)
        assert ParkedEventEditedV1.model_validate(act) == ParkedEventEditedV1(
            by=BY_ADA.by,
            why=BY_ADA.why,
            subscriber=NAME,
            topic=TOPIC.name,
            partition=0,
            offset=0,
            parked_subject=str(ada),
            parked_event_id=row["event_id"],
            parked_type=UserSignedUpV1.event_type,
            payload_sha256=sha256,
            replaced_sha256=hashlib.sha256(came.value or b"").hexdigest(),
            payload=row["edited_payload"].decode(),
        )
        done = await shop.release_subject(ada)
        assert (done.released, await shop.handled()) == (2, [1, 2])

    async def test_too_large_for_the_event_about_it_is_kept_in_the_database(
        self, shop: Shop
    ) -> None:
        ada = uuid4()
        came = with_an_odd_name(ada, 1)
        await shop.comes(came)
        (id_,) = (await shop.ids()).values()
        fits = json_of(came, data={"username": "ada"})
        size = len(json.dumps(fits | {"filler": ""}))
        for more in (0, 1):
            filler = "x" * (MOST_PAYLOAD_BYTES - size + more)
            await shop.edit(id_, fits | {"filler": filler})
        row = await shop.row(id_)
        assert (await shop.release_one(id_)).released == 1

        within, above = await acts(shop, EDITED)

        assert (len(within["payload"]), within["payload_id"]) == (MOST_PAYLOAD_BYTES, None)
        assert above["payload"] is None
        assert above["replaced_sha256"] == within["payload_sha256"]
        kept = await rows(shop.service.database, "SELECT id, payload FROM edited_payloads")
        assert [tuple(each) for each in kept] == [
            (UUID(above["payload_id"]), row["edited_payload"])
        ]
        assert hashlib.sha256(row["edited_payload"]).hexdigest() == above["payload_sha256"]

    async def test_may_turn_a_version_that_is_not_handled_into_one_that_is(
        self, shop: Shop
    ) -> None:
        ada = uuid4()
        first, second = in_both_versions(ada, 1)
        shop.change_subscriber(UserSignedUpV2)
        await shop.comes(first)
        shop.change_subscriber(UserSignedUpV1)
        await shop.comes(second)
        (id_,) = (await shop.ids()).values()
        assert (await shop.row(id_))["reason"] == ParkReason.VERSION_MISSED
        came = json.loads(second.payload)

        await shop.edit(id_, came | {"type": UserSignedUpV1.event_type})

        assert (await shop.release_one(id_)).released == 1
        assert await shop.handled() == [2]

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": str(UUID("0197a3f0-0000-7000-8000-000000000000"))},
            {"subject": "another"},
            {"sequence": "0000000007"},
        ],
        ids=["id", "subject", "sequence"],
    )
    async def test_into_another_event_is_refused(self, shop: Shop, changes: dict[str, str]) -> None:
        came = with_an_odd_name(uuid4(), 1)
        await shop.comes(came)
        (id_,) = (await shop.ids()).values()

        with pytest.raises(InvalidFields, match=f"{next(iter(changes))}: must stay"):
            await shop.edit(id_, json_of(came, data={"username": "ada"}, **changes))

        assert (await shop.row(id_))["edited_payload"] is None
        assert await acts_of(shop.service.database) == []

    async def test_into_what_the_subscriber_would_not_handle_is_refused(self, shop: Shop) -> None:
        ada = uuid4()
        came = with_an_odd_name(ada, 1)
        await shop.comes(came)
        (id_,) = (await shop.ids()).values()
        (other,) = records_of(other_event(ada, 1))
        unhandled: list[tuple[dict[str, Any], str]] = [
            ({}, "specversion"),
            (json_of(came), "data.username"),
            (json_of(other), "type"),
            (json_of(came, data={"username": float("nan")}), "no JSON"),
            (json_of(came, data={"username": "\ud800"}), "no JSON"),
        ]

        for payload, why in unhandled:
            with pytest.raises(InvalidFields, match=why):
                await shop.edit(id_, payload)

    async def test_of_a_subscriber_that_keeps_records_is_refused(self, database: str) -> None:
        async def keep(_work: PathWork, _records: object) -> None:
            raise NameIsTaken("taken")

        async with schema(database) as engine:
            shop = Shop(database, engine, RecordSubscriber("test.keep", TOPIC, keep))
            event = signed_up(uuid4(), 1)
            await shop.comes(event)
            (id_,) = (await shop.ids()).values()

            with pytest.raises(NotEditable):
                await shop.edit(id_, json.loads(event.payload))


class TestDiscarding:
    async def test_deletes_the_event_and_the_next_one_is_handled(self, shop: Shop) -> None:
        ada = uuid4()
        await shop.parks(ada, 1)
        (id_,) = (await shop.ids()).values()

        await shop.discard(id_)
        await shop.comes(signed_up(ada, 2))

        assert await shop.ids() == {}
        assert await shop.handled() == [2]
        (act,) = await acts(shop, DISCARDED)
        assert ParkedEventDiscardedV1.model_validate(act).why == BY_ADA.why

    async def test_twice_is_refused_the_second_time(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1)
        (id_,) = (await shop.ids()).values()
        await shop.discard(id_)

        with pytest.raises(NoSuchParkedEvent):
            await shop.discard(id_)

        assert await acts_of(shop.service.database) == [(DISCARDED, str(id_), 1)]

    async def test_is_possible_when_its_subscriber_is_gone(self, shop: Shop) -> None:
        await shop.parks(uuid4(), 1)
        await rows(shop.service.database, "UPDATE parked SET subscriber = 'test.gone'")
        (id_,) = (await shop.ids()).values()

        await shop.discard(id_)

        assert await shop.ids() == {}


class TestOverHttp:
    async def test_it_is_found_tried_edited_and_released(
        self, shop: Shop, client: httpx.AsyncClient
    ) -> None:
        ada = uuid4()
        came = with_an_odd_name(ada, 1)
        await shop.comes(came, signed_up(ada, 2))

        (count, _) = (await client.get("/ops/parked/count")).json()["counts"]
        assert (count["events"], count["subscriber"]) == (1, NAME)
        page = (await client.get("/ops/parked", params={"reason": "not-understood"})).json()
        (found,) = page["parked"]
        assert "payload" not in found
        path = f"/ops/parked/{found['id']}"
        tried = (await client.post(f"{path}/dry-run")).json()
        assert tried["stays_parked"]["error_message"] == "data.username: string_type"
        repaired = {"why": "a typing error", "payload": json_of(came, data={"username": "ada"})}
        assert (await client.put(f"{path}/payload", json=repaired)).status_code == 204
        assert (await client.post(f"{path}/dry-run")).json()["stays_parked"] is None
        one = (await client.post(f"{path}/release", json={"why": "repaired"})).json()
        assert one == {"released": 1, "left": 1, "stopped_at": None}
        subject = {"subscriber": NAME, "topic": TOPIC.name, "subject": str(ada), "why": "repaired"}
        rest = (await client.post("/ops/parked/release", json=subject)).json()
        assert rest == {"released": 1, "left": 0, "stopped_at": None}

        assert await shop.handled() == [1, 2]
        assert {(act["by"], act["why"]) for act in await acts(shop, RELEASED)} == {
            (str(ADA.id), "repaired")
        }

    async def test_it_is_applied_and_discarded(self, shop: Shop, client: httpx.AsyncClient) -> None:
        await shop.parks(uuid4(), 1, 2)
        ids = await shop.ids()

        applied = await client.post(f"/ops/parked/{ids[1]}/apply", json={"why": "now"})
        discarded = await client.post(f"/ops/parked/{ids[0]}/discard", json={"why": "not wanted"})

        assert (applied.json()["released"], discarded.status_code) == (1, 204)
        assert await shop.handled() == [2]
        assert await shop.ids() == {}

    async def test_a_refusal_has_its_code(self, shop: Shop, client: httpx.AsyncClient) -> None:
        await shop.parks(uuid4(), 1, 2)
        ids = await shop.ids()
        why = {"why": "x"}

        async def refused(path: str, body: dict[str, Any]) -> tuple[int, str]:
            method = "PUT" if path.endswith("payload") else "POST"
            answer = await client.request(method, f"/ops/parked/{path}", json=body)
            return answer.status_code, answer.json()["code"]

        unknown = uuid4()
        subject = {"subscriber": "test.gone", "topic": TOPIC.name, "subject": "x", **why}
        assert await refused(f"{ids[1]}/release", why) == (409, "not-first")
        assert await refused(f"{ids[0]}/payload", why | {"payload": {}}) == (422, "invalid-fields")
        for act in ("release", "apply", "discard", "dry-run"):
            assert await refused(f"{unknown}/{act}", why) == (404, "no-such-parked-event")
        assert await refused("release", subject) == (404, "no-such-subscriber")

    @pytest.mark.parametrize(
        "body", [{}, {"why": ""}, {"why": "a\0b"}, {"why": "x" * 1_001}, {"why": "x", "who": "me"}]
    )
    @pytest.mark.parametrize("act", ["release", "apply", "discard"])
    async def test_an_act_without_a_reason_is_refused(
        self, shop: Shop, client: httpx.AsyncClient, body: dict[str, str], act: str
    ) -> None:
        answer = await client.post(f"/ops/parked/{uuid4()}/{act}", json=body)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-fields")

    @pytest.mark.parametrize(
        "search", ["subjekt=a", "reason=odd", "after=7", "limit=0", "limit=201", "subject=a%00b"]
    )
    async def test_an_invalid_search_is_refused(
        self, client: httpx.AsyncClient, search: str
    ) -> None:
        answer = await client.get(f"/ops/parked?{search}")

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == search.partition("=")[0]

    @pytest.mark.parametrize(("role", "status"), [("", 401), ("user", 403)])
    async def test_only_operators_are_admitted(
        self, shop: Shop, client: httpx.AsyncClient, role: str, status: int
    ) -> None:
        await shop.parks(uuid4(), 1)
        (id_,) = (await shop.ids()).values()
        routes = [
            ("GET", ""),
            ("GET", "/count"),
            ("GET", f"/{id_}"),
            ("POST", f"/{id_}/dry-run"),
            ("PUT", f"/{id_}/payload"),
            ("POST", f"/{id_}/release"),
            ("POST", f"/{id_}/apply"),
            ("POST", f"/{id_}/discard"),
            ("POST", "/release"),
        ]

        for method, path in routes:
            answer = await client.request(
                method, f"/ops/parked{path}", headers={"role": role}, json={"why": "x"}
            )
            assert answer.status_code == status, path

        assert await shop.ids() == {0: id_}
