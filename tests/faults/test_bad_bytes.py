"""Bad bytes on every topic are kept, and delay no other event."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from chassis.testing import eventually
from contracts.topics import TOPICS, USERS_USER
from tests.declared import declared
from tests.faults.bad_bytes import (
    FORKED,
    HANDLED,
    NO_EVENT,
    NOT_UNDERSTOOD,
    REPEATED,
    BadRecord,
    bad_records,
)
from tests.faults.databases import rows
from tests.faults.harness import System
from tests.faults.watch import wait_for_answers
from verification.report import Expected
from verification.verify import verify

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("bad-bytes")]

SUBSCRIBED = declared("users", "accounts", "notification")


@dataclass(frozen=True, slots=True)
class Published:
    """A bad record, and its place on its topic."""

    bad: BadRecord
    topic: str
    partition: int
    offset: int

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


async def publish_bad_records(system: System) -> list[Published]:
    """Publish one of each kind on every topic, among the events of people who sign up."""
    published: list[Published] = []
    producer = AIOKafkaProducer(
        bootstrap_servers=system.cluster.kafka_bootstrap, max_request_size=2_000_000
    )
    await producer.start()
    try:
        for topic in TOPICS:
            for bad in bad_records(topic):
                published_at: RecordMetadata = await producer.send_and_wait(
                    topic.name, bad.value, key=bad.key, headers=bad.headers
                )
                published.append(
                    Published(bad, topic.name, published_at.partition, published_at.offset)
                )
    finally:
        await producer.stop()
    return published


async def parked(system: System, service: str) -> dict[tuple[str, int, int], str]:
    """Return the place of each parked event of a service, and its reason."""
    found = await rows(system, service, "SELECT * FROM parked")
    return {(row["topic"], row["partition"], row["offset"]): row["reason"] for row in found}


async def until_all_is_read(system: System, published: Sequence[Published]) -> None:
    """Wait until every subscriber has read all that was published."""

    async def is_read() -> bool:
        for service in (*SUBSCRIBED, "audit"):
            found = await rows(system, service, "SELECT * FROM progress")
            next_offsets = {(row["topic"], row["partition"]): row["next_offset"] for row in found}
            for topic, partition, offset in (each.place for each in published):
                if next_offsets.get((topic, partition), offset + 1) <= offset:
                    return False
        return True

    await eventually(is_read, within_s=60)


class TestBadBytesOnEveryTopic:
    async def test_are_parked_or_passed_over_and_kept_and_good_events_among_them_are_handled(
        self, system: System
    ) -> None:
        async with system.workload.at(10):
            published = await publish_bad_records(system)
            await wait_for_answers(system, 21)
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
        await self.assert_kept_with_their_bytes(system, published)
        await self.assert_handled(
            system, [each.bad for each in of_users if each.bad.subscribed == HANDLED]
        )
        await self.assert_nothing_else_is_broken(system, published)

    async def assert_kept_with_their_bytes(
        self, system: System, published: Sequence[Published]
    ) -> None:
        found = await rows(system, "audit", "SELECT * FROM records")
        kept = {(row["topic"], row["partition"], row["offset"]): row for row in found}
        for each in published:
            if each.bad.audited == REPEATED:
                assert each.place not in kept
                continue
            row = kept[each.place]
            assert (row["key"], row["payload"]) == (each.bad.key, each.bad.value)
            outcome = NO_EVENT if row["invalid_reason"] is not None else row["verdict"]
            assert outcome == each.bad.audited, (row["invalid_reason"], each)

    async def assert_handled(self, system: System, handled: Sequence[BadRecord]) -> None:
        found = await rows(system, "accounts", "SELECT user_id FROM accounts")
        accounts = [row["user_id"] for row in found]
        for each in handled:
            assert accounts.count(subject_of(each)) == 1, each

    async def assert_nothing_else_is_broken(
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
    subject = dict(bad.headers).get("subject")
    return UUID(subject.decode()) if subject else None
