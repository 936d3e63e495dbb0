"""A sign-up over HTTP becomes an account, tasks, an audit record and a Slack message."""

import asyncio
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contracts.events import family_of
from local_cluster.testing import RunningCluster
from tests.declared import declared
from tests.e2e.people import Operator, Person, a_name, poll, slack_messages

pytestmark = pytest.mark.xdist_group("e2e")


class TestTheJourneyOfASignUp:
    async def test_one_command_has_all_its_effects_under_one_correlation_id(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        person, own_id = Person(gateway), f"test-{uuid4()}"

        answer = await person.sign_up(**{"X-Correlation-ID": own_id})

        assert answer.status_code == 201
        assert answer.headers["location"] == f"/users/{person.id}"
        assert answer.headers["x-client-correlation-id"] == own_id
        correlation_id = answer.headers["x-correlation-id"]
        assert correlation_id != own_id
        account = await poll(lambda: operator.account_of(person))
        assert account is not None
        assert (account["balance"], account["currency"]) == ("0.00", "USD")
        assert [each["description"] for each in account["transactions"]] == ["Initial"]
        headers = await person.sign_in()

        async def tasks() -> list[dict[str, Any]]:
            page = (await gateway.get("/users/me/tasks", headers=headers)).json()
            found: list[dict[str, Any]] = page["tasks"]
            return found

        assert {each["name"] for each in await poll(tasks, lambda found: len(found) == 2)} == {
            "Create your GitHub account",
            "Review the project documentation",
        }
        records = await poll(lambda: operator.audit_records_of(person))
        assert [family_of(each["type"]) for each in records] == ["users.user-signed-up"]
        assert records[0]["correlation_id"] == correlation_id
        own = await operator.get("/audit/events", client_correlation_id=own_id)
        assert {each["correlation_id"] for each in own["events"]} == {correlation_id}
        if declared("notification"):
            messages = await poll(lambda: slack_messages(cluster, person.username))
            assert len(messages) == 1
            (delivery,) = await operator.deliveries_of(records[0]["event_id"])
            assert (delivery["address"], delivery["correlation_id"]) == ("growth", correlation_id)

    async def test_all_its_events_are_found_by_its_correlation_id(
        self, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        answer = await Person(gateway).sign_up()
        correlation_id = answer.headers["x-correlation-id"]

        async def types() -> list[str]:
            page = await operator.get("/audit/events", correlation_id=correlation_id)
            return sorted(family_of(each["type"]) for each in page["events"])

        assert await poll(types, lambda found: len(found) == 4) == [
            "accounts.account-opened",
            "users.task-created",
            "users.task-created",
            "users.user-signed-up",
        ]

    async def test_the_same_command_sent_again_is_answered_again_and_done_once(
        self, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        person, key = Person(gateway), str(uuid4())

        first = await person.sign_up(**{"Idempotency-Key": key})
        again = await person.sign_up(**{"Idempotency-Key": key})
        other = await gateway.post(
            "/users", json=person.body | {"alias": "other"}, headers={"Idempotency-Key": key}
        )

        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json()
        assert again.headers["location"] == first.headers["location"]
        # Another body without a token is another request: this one asks for a name that is taken.
        assert (other.status_code, other.json()["code"]) == (409, "username-is-taken")
        records = await poll(lambda: operator.audit_records_of(person))
        assert len(records) == 1

    async def test_a_name_that_two_people_ask_for_at_once_goes_to_one(
        self, gateway: httpx.AsyncClient
    ) -> None:
        name = a_name()
        both = [Person(gateway, username=name), Person(gateway, username=name.upper())]

        answers = await asyncio.gather(*(each.sign_up() for each in both))

        assert sorted(each.status_code for each in answers) == [201, 409]
        refused = max(answers, key=lambda each: each.status_code)
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] in ("username-is-taken", "email-is-taken")

    async def test_every_broken_field_is_named_in_one_answer(
        self, gateway: httpx.AsyncClient
    ) -> None:
        broken = {"username": "x", "email": "no-address", "password": "short", "alias": "no spaces"}

        answer = await gateway.post("/users", json=broken)

        assert answer.status_code == 422
        problem = answer.json()
        assert {each["field"].rpartition("/")[2] for each in problem["errors"]} == set(broken)
        assert problem["correlation_id"] == answer.headers["x-correlation-id"]
        assert "no-address" not in answer.text


class TestWhoMaySeeWhat:
    async def test_an_account_is_seen_by_its_owner_and_by_no_other_user(
        self, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        owner, stranger = Person(gateway), Person(gateway)
        await owner.sign_up()
        await stranger.sign_up()
        account = await poll(lambda: operator.account_of(owner))
        assert account is not None
        path = f"/accounts/{account['id']}"

        answers = [
            await gateway.get(path, headers=await owner.sign_in()),
            await gateway.get(path, headers=await stranger.sign_in()),
            await gateway.get(path),
        ]

        assert [each.status_code for each in answers] == [200, 404, 401]

    async def test_what_operators_see_is_closed_to_users_and_has_a_listener_of_its_own(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient
    ) -> None:
        person = Person(gateway)
        await person.sign_up()
        headers = await person.sign_in()

        paths = ["/audit/events", "/ops/users/parked"]
        if declared("notification"):
            paths.append("/notifications/deliveries")
        for path in paths:
            url = f"{cluster.operators_url}{path}"
            assert (await gateway.get(url)).status_code == 401
            answer = await gateway.get(url, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "operators-only")
            assert (await gateway.get(path, headers=headers)).status_code == 404


class TestWhatAnOperatorReads:
    async def test_of_others_is_kept_by_audit_also_what_they_read_in_audit(
        self, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        person = Person(gateway)
        await person.sign_up()
        of_it = {"subject": person.id}
        answers = {
            "/users/{user_id}": await gateway.get(f"/users/{person.id}", headers=operator.headers),
            "/audit/events": await operator.request("GET", "/audit/events", params=of_it),
            "/ops/parked": await operator.request("GET", "/ops/accounts/parked", params=of_it),
        }

        for route, answer in answers.items():
            assert answer.status_code == 200
            search = {"correlation_id": answer.headers["x-correlation-id"]}
            page = await poll(
                partial(operator.get, "/audit/events", **search), lambda page: bool(page["events"])
            )
            [record] = page["events"]
            event = (await operator.get(f"/audit/events/{record['id']}"))["event"]
            assert event["type"] == "operations.data-read.v1"
            assert event["data"] == {"by": event["subject"], "route": route, "ids": [person.id]}
            assert person.username not in str(event)


class TestTheApiPage:
    async def test_it_shows_every_public_path_and_needs_nothing_from_elsewhere(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient
    ) -> None:
        page = await gateway.get("/docs")
        document = (await gateway.get("/openapi.json")).json()
        of_operators = (await gateway.get(f"{cluster.operators_url}/openapi.json")).json()

        assert page.status_code == 200
        assert "https://" not in page.text
        assert {"/users", "/auth/token", "/users/{user_id}/account"} <= set(document["paths"])
        assert {"/auth/token", "/audit/events", "/ops/users/parked"} <= set(of_operators["paths"])
        assert document["paths"].keys() & of_operators["paths"].keys() == {"/auth/token"}
