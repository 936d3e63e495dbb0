"""Kafka dies, stops, freezes, refuses: commands are answered, nothing is lost or done twice."""

import asyncio
import os
import signal
import sys
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
from tests.faults.damage import end_holds
from tests.faults.databases import rows
from tests.faults.harness import System, running_system
from tests.faults.points import ROOT
from tests.faults.producing import append_to_outbox, sign_up_of, withheld
from tests.faults.watch import (
    PER_SECOND,
    Watch,
    stopped,
    under_load,
    wait_for_answers,
    watching,
)
from verification.addresses import SERVICES as WITH_DATABASE

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("kafka-faults")]

NOT_TAKEN: Final = "Kafka does not take records"
NO_ANSWER: Final = "Kafka does not answer"
REFUSED: Final = "users.user is not drained"
# Enough for one sign-up with its headers, but not for several.
LARGEST_ROW_BYTES: Final = 2_000
TOPIC_SETTINGS: Final = (
    "min.insync.replicas",
    "retention.ms",
    "cleanup.policy",
    "message.timestamp.after.max.ms",
)


async def until_all_report_it(watch: Watch) -> None:
    """Wait until every service that needs Kafka reports that it does not answer."""
    for each in WITH_DATABASE:
        await watch.until_reported(each, "agents", NO_ANSWER)
    await watch.until_reported("users", "relay", NOT_TAKEN)


class TestKafka:
    async def test_is_restarted_in_order(self, system: System) -> None:
        async with under_load(system) as watch, stopped(system, "kafka"):
            pass

        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}

    async def test_is_killed(self, system: System) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("kafka")

        assert not watch.not_ready
        assert watch.restarts == {"kafka": 1}

    async def test_is_stopped_for_long(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch, stopped(system, "kafka"):
            before = len(system.workload.promised)
            await asyncio.sleep(outage_s)
            answered_meanwhile = len(system.workload.promised) - before
            await until_all_report_it(watch)

        assert answered_meanwhile > outage_s * PER_SECOND / 2
        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}

    async def test_is_frozen_and_wakes(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("kafka", signal.SIGSTOP)
            try:
                before = len(system.workload.promised)
                await asyncio.sleep(outage_s / 2)
                answered_meanwhile = len(system.workload.promised) - before
                await until_all_report_it(watch)
            finally:
                system.cluster.kill("kafka", signal.SIGCONT)

        assert answered_meanwhile > outage_s * PER_SECOND / 4
        assert not watch.not_ready
        assert not watch.restarts

    async def test_is_stopped_when_the_services_start(self, system: System) -> None:
        async with under_load(system) as watch, stopped(system, "kafka"):
            for each in system.services:
                system.cluster.kill(each)
            await until_all_report_it(watch)
            await wait_for_answers(system)

        assert {name: watch.restarts[name] for name in system.services} == dict.fromkeys(
            system.services, 1
        )


class TestWhatKafkaRefuses:
    async def test_a_batch_that_is_too_large_is_sent_row_by_row(self, system: System) -> None:
        """Small rows share a batch that is too large; one row is too large by itself."""
        too_large = uuid4()
        async with watching(system) as watch:
            await limit_batches(system, USERS_USER, LARGEST_ROW_BYTES)
            async with stopped(system, "kafka"):
                await system.workload.sign_up(25)
                long_name = sign_up_of(too_large, "x" * 2 * LARGEST_ROW_BYTES)
                await append_to_outbox(system, too_large, {1: long_name, 2: withheld()})
                await system.workload.sign_up(25)

            await wait_for_outbox(system, [(str(too_large), 2)])
            aside = await rows(
                system, "users", "SELECT id, aggregateid, error_code FROM outbox_set_aside"
            )
            await limit_batches(system, USERS_USER, USERS_USER.max_message_bytes)

        assert [(each["aggregateid"], each["error_code"]) for each in aside] == [
            (str(too_large), "MessageSizeTooLargeError")
        ]
        assert not watch.not_ready
        assert not watch.restarts.keys() - {"kafka"}
        await discard(system, aside[0]["id"])
        await system.assert_nothing_is_lost()

    async def test_a_topic_that_is_missing_delays_no_other(self, tmp_path: Path) -> None:
        with running_system(tmp_path) as system:
            await delete_topic(system, USERS_TASK)
            async with under_load(system) as watch:
                await watch.until_reported("users", "relay", "topic users.task is missing")
                system.cluster.kill("audit")
                await watch.until_reported("audit", "agents", "topic users.task is missing")
                await wait_for_accounts(system, len(system.workload.promised) + 10)
                assert await run_tool(system, "create-topics") == (0, "created users.task\n")
                await watch.until_reported(
                    "audit", "agents", "users.task was deleted and made again"
                )
                await end_holds(system, ["audit"])

            assert watch.not_ready.keys() <= {"audit"}
            assert watch.restarts == {"audit": 1}


class TestMorePartitions:
    async def test_are_refused_before_a_drain_and_lose_nothing_after_it(
        self, tmp_path: Path
    ) -> None:
        with running_infrastructure(tmp_path / "cluster", postgres=False) as infrastructure:
            # As if it was made when the catalogue had fewer partitions.
            await create_topic(infrastructure.kafka_bootstrap, replace(USERS_USER, partitions=4))
        with running_system(tmp_path) as system:
            async with system.workload.at(PER_SECOND):
                await wait_for_answers(system)
                assert await raise_partitions(system) == (
                    2,
                    f"{REFUSED}: the relay of users is at work, and has to be stopped\n",
                )
            await system.assert_nothing_is_lost()
            early = list(system.workload.promised)
            await asyncio.to_thread(system.cluster.stop, "accounts")
            await system.workload.sign_up(10)
            await wait_for_outbox(system, [])
            await asyncio.to_thread(system.cluster.stop, "users")
            code, output = await raise_partitions(system)
            assert (code, output.startswith(f"{REFUSED}: accounts.open-account is ")) == (
                2,
                True,
            )

            await asyncio.to_thread(system.cluster.resume, "accounts")
            await eventually(lambda: is_raised(system), within_s=60, every_s=1)
            await asyncio.to_thread(system.cluster.resume, "users")
            await eventually(lambda: everyone_is_ready(system.cluster), within_s=60)
            await system.workload.sign_up(20)
            # The first event of these users is in the partition that their key had before.
            for user in early:
                await append_to_outbox(system, user, {2: withheld()})
            system.made_up.clear()

            await system.assert_nothing_is_lost()
            (verdicts,) = await rows(
                system, "audit", "SELECT array_agg(DISTINCT verdict) AS verdicts FROM records"
            )
            assert verdicts["verdicts"] == ["next"]
            (moved,) = await rows(
                system, "audit", "SELECT count(*) FROM records WHERE sequence = 2 AND partition > 3"
            )
            assert moved["count"] > 0


async def limit_batches(system: System, topic: Topic, max_bytes: int) -> None:
    """Limit the size of a topic's batches at the broker."""
    async with admin_client(system.cluster.kafka_bootstrap) as admin:
        state = (await topic_states(admin, [topic.name]))[topic.name]
        assert state is not None
        # All settings are replaced: one that is left out goes back to the broker's default.
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
    """Run ``python -m chassis.kafka``; return its exit code and its output."""
    urls = {
        f"{each.upper()}_DATABASE_URL": system.cluster.postgres_url(each) for each in WITH_DATABASE
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "chassis.kafka", *arguments, "--bootstrap", system.cluster.kafka_bootstrap),
        env=os.environ | urls,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def raise_partitions(system: System) -> tuple[int, str]:
    return await run_tool(system, "raise-partitions", USERS_USER.name)


async def is_raised(system: System) -> bool:
    code, output = await raise_partitions(system)
    assert code == 0 or (code == 2 and output.startswith(REFUSED)), output
    return code == 0


async def wait_for_outbox(system: System, expected: list[tuple[str, int]]) -> None:
    """Wait until exactly these subjects and sequences are in the outbox of users."""

    async def are_left() -> bool:
        found = await rows(
            system, "users", "SELECT aggregateid, sequence FROM outbox ORDER BY position"
        )
        return [tuple(each) for each in found] == expected

    await eventually(are_left, within_s=60)


async def wait_for_accounts(system: System, number: int) -> None:
    """Wait until so many people have their accounts."""

    async def are_opened() -> bool:
        (found,) = await rows(
            system, "accounts", "SELECT count(*) FROM accounts WHERE user_id IS NOT NULL"
        )
        return int(found["count"]) >= number

    await eventually(are_opened, within_s=60)


async def discard(system: System, event_id: UUID) -> None:
    """Let an operator discard a row that Kafka refuses."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url) as gateway:
        token = await token_of(gateway, system.cluster.operator, system.cluster.operator_password)
        answer = await gateway.post(
            f"{system.cluster.url('users')}/ops/outbox/{event_id}/discard",
            json={"why": "It is too large."},
            headers=token,
        )
    assert answer.status_code == httpx.codes.NO_CONTENT, answer.text
