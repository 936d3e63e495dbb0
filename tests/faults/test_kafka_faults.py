"""Kafka dies, is away, freezes, refuses: commands are answered, and nothing is lost or doubled."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import httpx
import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chassis.kafka.client import admin_client
from chassis.kafka.topics import topic_states
from chassis.testing import eventually
from contracts.topics import USERS_TASK, USERS_USER, Topic
from local_cluster.testing import running_infrastructure
from tests.e2e.people import everyone_is_ready, token_of
from tests.faults.databases import ask
from tests.faults.harness import System, running_system
from tests.faults.points import ROOT
from tests.faults.producing import nobody_waits_for, sign_up_of, tell
from tests.faults.watch import PER_SECOND, Watch, answered, away, under_load, watching

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("kafka-faults")]

CONSUMERS: Final = ("users", "accounts", "audit", "notification")
NOT_TAKEN: Final = "Kafka does not take records"
NO_ANSWER: Final = "Kafka does not answer"
REFUSED: Final = "users.user is not drained"
# Enough for a sign-up with its headers, and too little for some.
LARGEST_ROW_BYTES: Final = 2_000
TOPIC_SETTINGS: Final = (
    "min.insync.replicas",
    "retention.ms",
    "cleanup.policy",
    "message.timestamp.after.max.ms",
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all faults: each finds it as those before have left it."""
    with running_system(tmp_path_factory.mktemp("kafka-faults")) as system:
        yield system


async def until_told(watch: Watch) -> None:
    """Wait until everyone who needs Kafka says that it is away."""
    for each in CONSUMERS:
        await watch.until_said(each, "agents", NO_ANSWER)
    await watch.until_said("users", "relay", NOT_TAKEN)


class TestKafka:
    async def test_is_restarted_in_order(self, system: System) -> None:
        async with under_load(system) as watch, away(system, "kafka"):
            pass

        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}

    async def test_is_killed(self, system: System) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("kafka")

        assert not watch.not_ready
        assert watch.restarts == {"kafka": 1}

    async def test_is_away_for_long(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch, away(system, "kafka"):
            before = len(system.workload.promised)
            await asyncio.sleep(outage_s)
            answered_meanwhile = len(system.workload.promised) - before
            await until_told(watch)

        assert answered_meanwhile > outage_s * PER_SECOND / 2
        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}

    async def test_is_frozen_and_goes_on(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("kafka", signal.SIGSTOP)
            try:
                before = len(system.workload.promised)
                await asyncio.sleep(outage_s / 2)
                answered_meanwhile = len(system.workload.promised) - before
                await until_told(watch)
            finally:
                system.cluster.kill("kafka", signal.SIGCONT)

        assert answered_meanwhile > outage_s * PER_SECOND / 4
        assert not watch.not_ready
        assert not watch.restarts

    async def test_is_gone_when_the_services_start(self, system: System) -> None:
        async with under_load(system) as watch, away(system, "kafka"):
            for each in system.services:
                system.cluster.kill(each)
            await until_told(watch)
            await answered(system)

        assert {name: watch.restarts[name] for name in system.services} == dict.fromkeys(
            system.services, 1
        )


class TestWhatKafkaRefuses:
    async def test_a_batch_that_is_too_large_is_sent_row_by_row(self, system: System) -> None:
        """Rows that are small enough share a batch that is not; one row is too large by itself."""
        too_large = uuid4()
        async with watching(system) as watch:
            await limit_of(system, USERS_USER, LARGEST_ROW_BYTES)
            async with away(system, "kafka"):
                await system.workload.sign_up(25)
                long_name = sign_up_of(too_large, "x" * 2 * LARGEST_ROW_BYTES)
                await tell(system, too_large, {1: long_name, 2: nobody_waits_for()})
                await system.workload.sign_up(25)

            await until_left_in_outbox(system, [(str(too_large), 2)])
            aside = await ask(
                system, "users", "SELECT id, aggregateid, error_code FROM outbox_set_aside"
            )
            await limit_of(system, USERS_USER, USERS_USER.max_message_bytes)

        assert [(each["aggregateid"], each["error_code"]) for each in aside] == [
            (str(too_large), "MessageSizeTooLargeError")
        ]
        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}
        await discard(system, aside[0]["id"])
        await system.assert_nothing_is_lost()

    async def test_a_topic_that_is_missing_holds_up_no_other(self, tmp_path: Path) -> None:
        with running_system(tmp_path) as system:
            await delete_topic(system, USERS_TASK)
            async with under_load(system) as watch:
                await watch.until_said("users", "relay", "topic users.task is missing")
                system.cluster.kill("audit")
                await watch.until_said("audit", "agents", "topic users.task is missing")
                await until_accounts(system, len(system.workload.promised) + 10)
                assert await run_tool(system, "create-topics") == (0, "created users.task\n")

            assert watch.not_ready.keys() <= {"audit"}
            assert watch.restarts == {"audit": 1}


class TestMorePartitions:
    async def test_are_refused_before_a_drain_and_lose_nothing_after_it(
        self, tmp_path: Path
    ) -> None:
        with running_infrastructure(tmp_path / "cluster", postgres=False) as infrastructure:
            # As it was made when the catalogue said less.
            await create_topic(infrastructure.kafka_bootstrap, replace(USERS_USER, partitions=4))
        with running_system(tmp_path) as system:
            async with system.workload.at(PER_SECOND):
                await answered(system)
                assert await raise_partitions(system) == (
                    2,
                    f"{REFUSED}: the relay of users is at work, and has to be stopped\n",
                )
            await system.assert_nothing_is_lost()
            early = list(system.workload.promised)
            await asyncio.to_thread(system.cluster.stop, "notification")
            await system.workload.sign_up(10)
            await until_left_in_outbox(system, [])
            await asyncio.to_thread(system.cluster.stop, "users")
            code, said = await raise_partitions(system)
            assert (code, said.startswith(f"{REFUSED}: notification.plan-deliveries is ")) == (
                2,
                True,
            )

            await asyncio.to_thread(system.cluster.resume, "notification")
            await eventually(lambda: is_raised(system), within_s=60, every_s=1)
            await asyncio.to_thread(system.cluster.resume, "users")
            await eventually(lambda: everyone_is_ready(system.cluster), within_s=60)
            await system.workload.sign_up(20)
            # Of these, the first event is in the partition that their key had before.
            for user in early:
                await tell(system, user, {2: nobody_waits_for()})
            system.made_up.clear()

            await system.assert_nothing_is_lost()
            (verdicts,) = await ask(
                system, "audit", "SELECT array_agg(DISTINCT verdict) AS verdicts FROM records"
            )
            assert verdicts["verdicts"] == ["next"]
            (moved,) = await ask(
                system, "audit", "SELECT count(*) FROM records WHERE sequence = 2 AND partition > 3"
            )
            assert moved["count"] > 0


async def limit_of(system: System, topic: Topic, max_bytes: int) -> None:
    """Let the broker take batches of a topic up to so many bytes."""
    async with admin_client(system.cluster.kafka_bootstrap) as admin:
        state = (await topic_states(admin, [topic.name]))[topic.name]
        assert state is not None
        # All of it is set anew: what is left out goes back to the broker's own.
        config = {name: state.config[name] for name in TOPIC_SETTINGS}
        config["max.message.bytes"] = str(max_bytes)
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, config)])


async def create_topic(bootstrap: str, topic: Topic) -> None:
    async with admin_client(bootstrap) as admin:
        await admin.create_topics([NewTopic(topic.name, topic.partitions, 1)])


async def delete_topic(system: System, topic: Topic) -> None:
    async with admin_client(system.cluster.kafka_bootstrap) as admin:
        await admin.delete_topics([topic.name])


async def run_tool(system: System, *arguments: str) -> tuple[int, str]:
    """Run ``python -m chassis.kafka``; return its exit code, and what it said."""
    urls = {f"{each.upper()}_DATABASE_URL": system.cluster.postgres_url(each) for each in CONSUMERS}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "chassis.kafka", *arguments, "--bootstrap", system.cluster.kafka_bootstrap),
        env=os.environ | urls,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def raise_partitions(system: System) -> tuple[int, str]:
    return await run_tool(system, "raise-partitions", USERS_USER.name)


async def is_raised(system: System) -> bool:
    code, said = await raise_partitions(system)
    assert code == 0 or (code == 2 and said.startswith(REFUSED)), said
    return code == 0


async def until_left_in_outbox(system: System, rows: list[tuple[str, int]]) -> None:
    """Wait until these subjects and numbers, and no others, are in the outbox of users."""

    async def are_left() -> bool:
        found = await ask(
            system, "users", "SELECT aggregateid, sequence FROM outbox ORDER BY position"
        )
        return [tuple(each) for each in found] == rows

    await eventually(are_left, within_s=60)


async def until_accounts(system: System, number: int) -> None:
    """Wait until so many people have their accounts."""

    async def are_opened() -> bool:
        (found,) = await ask(
            system, "accounts", "SELECT count(*) FROM accounts WHERE user_id IS NOT NULL"
        )
        return int(found["count"]) >= number

    await eventually(are_opened, within_s=60)


async def discard(system: System, event_id: UUID) -> None:
    """Have an operator give up a row that Kafka refuses."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url) as gateway:
        token = await token_of(gateway, system.cluster.operator, system.cluster.operator_password)
        answer = await gateway.post(
            f"{system.cluster.url('users')}/ops/outbox/{event_id}/discard",
            json={"why": "It is too large."},
            headers=token,
        )
    assert answer.status_code == httpx.codes.NO_CONTENT, answer.text
