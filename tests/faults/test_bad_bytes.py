"""Bad bytes on every topic: kept in sight, and in nobody's way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from chassis.testing import eventually
from contracts.topics import TOPICS, USERS_USER
from tests.faults.bad_bytes import (
    FORKED,
    HANDLED,
    NO_EVENT,
    NOT_UNDERSTOOD,
    REPEATED,
    BadRecord,
    bad_records,
)
from tests.faults.harness import System, running_system
from tests.faults.watch import answered
from tests.integration.chassis.path import rows
from verification.report import Expected
from verification.verify import verify

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("bad-bytes")]

SUBSCRIBED = ("users", "accounts", "notification")


@dataclass(frozen=True, slots=True)
class Published:
    """A bad record, and where it is."""

    bad: BadRecord
    topic: str
    partition: int
    offset: int

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("bad-bytes")) as system:
        yield system


async def publish_bad_records(system: System) -> list[Published]:
    """Publish one of each kind on every topic, each between events of people who sign up."""
    published: list[Published] = []
    producer = AIOKafkaProducer(
        bootstrap_servers=system.cluster.kafka_bootstrap, max_request_size=2_000_000
    )
    await producer.start()
    try:
        for topic in TOPICS:
            for bad in bad_records(topic):
                at: RecordMetadata = await producer.send_and_wait(
                    topic.name, bad.value, key=bad.key, headers=bad.headers
                )
                published.append(Published(bad, topic.name, at.partition, at.offset))
    finally:
        await producer.stop()
    return published


async def parked(system: System, service: str) -> dict[tuple[str, int, int], str]:
    """Return where everything is that a service has parked, and for what reason."""
    found = await rows(system.cluster.postgres_url(service), "SELECT * FROM parked")
    return {(row["topic"], row["partition"], row["offset"]): row["reason"] for row in found}


async def until_all_is_read(system: System, published: Sequence[Published]) -> None:
    """Wait until every subscriber has come past all that was published."""

    async def is_read() -> bool:
        for service in (*SUBSCRIBED, "audit"):
            found = await rows(system.cluster.postgres_url(service), "SELECT * FROM progress")
            places = {(row["topic"], row["partition"]): row["next_offset"] for row in found}
            for topic, partition, offset in (each.place for each in published):
                if places.get((topic, partition), offset + 1) <= offset:
                    return False
        return True

    await eventually(is_read, within_s=60)


class TestBadBytesOnEveryTopic:
    async def test_are_parked_or_passed_over_and_all_kept_and_good_events_amid_them_are_handled(
        self, system: System
    ) -> None:
        async with system.workload.at(10):
            published = await publish_bad_records(system)
            await answered(system, 21)
        await until_all_is_read(system, published)

        of_users = [each for each in published if each.topic == USERS_USER.name]
        expected = {
            each.place: each.bad.subscribed
            for each in of_users
            if each.bad.subscribed in (NOT_UNDERSTOOD, FORKED)
        }
        for service in SUBSCRIBED:
            assert await parked(system, service) == expected, service
        assert await parked(system, "audit") == {}
        await self.assert_kept_as_they_came(system, published)
        await self.assert_handled(
            system, [each.bad for each in of_users if each.bad.subscribed == HANDLED]
        )
        await self.assert_the_rest_is_whole(system, published)

    async def assert_kept_as_they_came(
        self, system: System, published: Sequence[Published]
    ) -> None:
        found = await rows(system.cluster.postgres_url("audit"), "SELECT * FROM records")
        kept = {(row["topic"], row["partition"], row["offset"]): row for row in found}
        for each in published:
            if each.bad.audited == REPEATED:
                assert each.place not in kept
                continue
            row = kept[each.place]
            assert (row["key"], row["payload"]) == (each.bad.key, each.bad.value)
            said = NO_EVENT if row["invalid_reason"] is not None else row["verdict"]
            assert said == each.bad.audited, (row["invalid_reason"], each)

    async def assert_handled(self, system: System, handled: Sequence[BadRecord]) -> None:
        found = await rows(system.cluster.postgres_url("accounts"), "SELECT user_id FROM accounts")
        accounts = [row["user_id"] for row in found]
        for each in handled:
            assert accounts.count(subject_of(each)) == 1, each

    async def assert_the_rest_is_whole(
        self, system: System, published: Sequence[Published]
    ) -> None:
        subjects = {str(subject_of(each.bad)) for each in published}
        expected = Expected(
            users=frozenset(system.workload.promised),
            parked=True,
            unreadable=len([each for each in published if each.bad.audited == NO_EVENT]),
            made_up=frozenset(subjects),
        )
        report = await verify(system.addresses, expected, wait_s=60)
        assert report.holds, report.broken()
        assert len(system.workload.promised) > 20


def subject_of(bad: BadRecord) -> UUID | None:
    """Return the subject that a record's headers name."""
    said = dict(bad.headers).get("subject")
    return UUID(said.decode()) if said else None
