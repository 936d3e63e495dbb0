"""What the system writes about people: nothing of it has their addresses or passwords."""

from uuid import uuid4

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from chassis.kafka.client import admin_client
from local_cluster.testing import RunningCluster
from services import WITH_DATABASE
from tests.e2e.people import Operator, Person, a_name, poll

pytestmark = pytest.mark.xdist_group("e2e")


async def records(cluster: RunningCluster) -> dict[str, bytes]:
    """Return all that each topic holds."""
    async with admin_client(cluster.kafka_bootstrap) as admin:
        topics = await admin.list_topics()
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=cluster.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        held: dict[str, bytes] = {each.topic: b"" for each in ends}
        while [each for each in ends if await consumer.position(each) < ends[each]]:
            for fetched in (await consumer.getmany(timeout_ms=500)).values():
                for record in fetched:
                    headers = b"".join(value for _, value in record.headers)
                    held[record.topic] += (record.key or b"") + (record.value or b"") + headers
        return held
    finally:
        await consumer.stop()


async def metrics(cluster: RunningCluster) -> dict[str, bytes]:
    """Return what each service measures."""
    async with httpx.AsyncClient(timeout=30) as client:
        answers = {
            each.name: await client.get(f"{cluster.url(each.name)}/metrics")
            for each in WITH_DATABASE
        }
    assert {answer.status_code for answer in answers.values()} == {200}
    return {f"metrics of {name}": answer.content for name, answer in answers.items()}


def logs(cluster: RunningCluster) -> dict[str, bytes]:
    """Return what each process has logged, PostgreSQL and Kafka included."""
    return {file.name: file.read_bytes() for file in cluster.log("users").parent.iterdir()}


class TestSomeoneWhoSignsUpTwice:
    async def test_is_named_where_the_username_is_published_and_nowhere_else(
        self, cluster: RunningCluster, gateway: httpx.AsyncClient, operator: Operator
    ) -> None:
        person = Person(gateway, password=f"right {uuid4().hex}")
        email, wrong = f"{uuid4().hex}@example.com", f"wrong {uuid4().hex}"
        body = person.body | {"email": email}

        signed_up = await gateway.post("/users", json=body)
        person.id = signed_up.json()["id"]
        refused = [
            await gateway.post("/users", json=body),
            await gateway.post("/users", json=body | {"username": a_name()}),
            await gateway.post("/users", json=body | {"password": email}),
            await gateway.post("/auth/token", data={"username": email, "password": wrong}),
        ]
        signed_in = await gateway.post(
            "/auth/token",
            data={"username": email, "password": person.password},
        )
        await poll(lambda: operator.audit_records_of(person))
        await poll(lambda: operator.account_of(person))

        async def has_logged_the_last() -> bool:
            last = signed_in.headers["x-correlation-id"]
            return last.encode() in cluster.log("users").read_bytes()

        await poll(has_logged_the_last)

        assert (signed_up.status_code, signed_in.status_code) == (201, 200)
        assert [each.json()["code"] for each in refused] == [
            "username-is-taken",
            "email-is-taken",
            "invalid-fields",
            "wrong-credentials",
        ]
        secret = [email, person.password, wrong, signed_in.json()["access_token"]]
        topics, elsewhere = await records(cluster), logs(cluster) | await metrics(cluster)
        assert {"users.log", "gateway.log", "postgres.log", "kafka.log"} <= elsewhere.keys()
        assert found(secret, topics | elsewhere) == []
        assert found([person.username], elsewhere) == []
        assert found([person.username], topics) == [("users.user", 0)]


def found(markers: list[str], places: dict[str, bytes]) -> list[tuple[str, int]]:
    """Return each place that holds a marker, and which."""
    return [
        (place, number)
        for place, held in places.items()
        for number, marker in enumerate(markers)
        if marker.encode() in held
    ]
