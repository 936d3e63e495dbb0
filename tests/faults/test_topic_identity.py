"""A topic is deleted, made again, cut, or loses its end: held until an operator decides."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from chassis.kafka.client import admin_client
from chassis.kafka.topic_ids import topic_ids
from contracts.topics import USERS_USER
from tests.e2e.people import poll
from tests.faults.damage import end_holds
from tests.faults.databases import rows
from tests.faults.harness import System
from tests.faults.test_kafka_faults import create_topic, delete_topic, wait_for_outbox
from tests.faults.watch import PER_SECOND, Watch, stopped, wait_for_answers, watching
from verification.report import Expected, Report
from verification.verify import verify

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("topic-identity")]

READERS: Final = USERS_USER.consumers
RESTARTED: Final = pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
MADE_AGAIN: Final = "users.user was deleted and made again"


class TestATopicThatIsMadeAgain:
    @RESTARTED
    @pytest.mark.parametrize("partitions", [8, 12, 9], ids=["as many", "more", "fewer"])
    async def test_is_handled_by_no_service_until_an_operator_decides(
        self, system: System, partitions: int, *, restarted: bool
    ) -> None:
        await system.workload.sign_up(20)
        await system.assert_nothing_is_lost()
        lost = await published(system)
        async with watching(system) as watch:
            await delete_topic(system, USERS_USER)
            if restarted:
                await poll(lambda: is_gone(system))
            else:
                await all_report(watch, "topic users.user is missing")
                async with system.workload.at(PER_SECOND):
                    await wait_for_answers(system)
            await create_topic(
                system.cluster.kafka_bootstrap, replace(USERS_USER, partitions=partitions)
            )
            await all_report(watch, MADE_AGAIN)

            await assert_nothing_is_handled(system, watch, READERS, MADE_AGAIN, restarted=restarted)

            report = await verified(system)
            assert report["progress"].violated >= partitions * len(READERS)
            assert report["producers"].violated >= len(lost) / 2
            system.made_up |= lost  # their loss is explained from now on
            await end_holds(system, READERS)
            await watch.until_well()
        await system.assert_nothing_is_lost()


class TestATopicThatIsCut:
    @RESTARTED
    async def test_before_one_service_has_handled_it_is_held_for_that_one(
        self, system: System, *, restarted: bool
    ) -> None:
        await system.workload.sign_up(20)
        await system.assert_nothing_is_lost()
        async with stopped(system, "accounts"):
            # So many that every partition has one, and is held.
            await system.workload.sign_up(150)
            await wait_for_outbox(system, [])
            lost = await until_audited(system)
            await cut(system)
        async with watching(system) as watch:
            await watch.until_reported("accounts", "agents", ", and progress is at ")

            await assert_nothing_is_handled(
                system, watch, ["accounts"], ", and progress is at ", restarted=restarted
            )

            report = await verified(system)
            assert any(
                "accounts.open-account is held: " in each.problem
                for each in report["progress"].violations
            )
            assert report["accounts"].violated >= 150
            system.made_up |= lost  # their loss is explained from now on
            await end_holds(system, ["accounts"])
            await watch.until_well()
        await system.assert_nothing_is_lost()


class TestATopicThatLosesItsEnd:
    @RESTARTED
    async def test_under_the_id_that_it_has_is_held_though_it_grows_again(
        self, system: System, *, restarted: bool
    ) -> None:
        await system.workload.sign_up(20)
        await system.assert_nothing_is_lost()
        lost = await published(system)
        async with watching(system) as watch:
            async with stopped(system, "kafka"):
                for each in system.cluster.directory.rglob(f"{USERS_USER.name}-[0-9]*"):
                    shutil.rmtree(each)
            await all_report(watch, "users.user[0] holds 0 to 0, and progress is at ")

            await assert_nothing_is_handled(
                system, watch, READERS, ", and progress is at ", restarted=restarted
            )

            system.made_up |= lost  # their loss is explained from now on
            await end_holds(system, READERS)
            await watch.until_well()
        await system.assert_nothing_is_lost()


async def assert_nothing_is_handled(
    system: System, watch: Watch, held: Sequence[str], reason: str, *, restarted: bool
) -> None:
    """Let the topic grow past all progress, and the held services begin again."""
    before = await accounts(system)
    await system.workload.sign_up(100)
    await wait_for_outbox(system, [])
    assert not watch.restarts.keys() - {"kafka"}
    if restarted:
        for each in held:
            await asyncio.to_thread(system.cluster.stop, each)
        for each in held:
            await asyncio.to_thread(system.cluster.resume, each)
    for each in held:
        await watch.until_reported(each, "agents", reason)
    assert await accounts(system) == before


async def all_report(watch: Watch, reason: str) -> None:
    for each in READERS:
        await watch.until_reported(each, "agents", reason)


async def verified(system: System) -> Report:
    """Verify a system that stands still because something is held."""
    expected = Expected(
        users=frozenset(system.workload.promised), made_up=frozenset(system.made_up)
    )
    return await verify(system.addresses, expected, wait_s=10)


async def accounts(system: System) -> int:
    (found,) = await rows(
        system, "accounts", "SELECT count(*) FROM accounts WHERE user_id IS NOT NULL"
    )
    return int(found["count"])


async def published(system: System) -> set[str]:
    """Return subject and id of each event that audit has of the topic, and no test has lost."""
    found = await rows(
        system,
        "audit",
        "SELECT subject, event_id::text FROM records WHERE topic = $1",
        USERS_USER.name,
    )
    return {text for row in found for text in row if text is not None} - system.made_up


async def until_audited(system: System) -> set[str]:
    """Wait until audit has every sign-up; return what it has of the topic."""

    async def has_all() -> bool:
        promised = {str(each) for each in system.workload.promised}
        return promised - system.made_up <= await published(system)

    await poll(has_all)
    return await published(system)


async def is_gone(system: System) -> bool:
    async with admin_client(system.cluster.kafka_bootstrap) as admin:
        return not await topic_ids(admin, [USERS_USER.name])


async def cut(system: System) -> None:
    """Delete every record that the topic holds now."""
    async with admin_client(system.cluster.kafka_bootstrap) as admin:
        (described,) = await admin.describe_topics([USERS_USER.name])
        await admin.delete_records(
            {
                TopicPartition(USERS_USER.name, each["partition"]): RecordsToDelete(-1)
                for each in described["partitions"]
            }
        )
