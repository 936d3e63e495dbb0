"""Transactions of other producers, any codec, a flipped bit: nothing is lost, no process ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chassis.consuming.positions import STUCK_AFTER_S
from chassis.kafka.client import admin_client
from chassis.kafka.topics import topic_states
from contracts.topics import USERS_USER
from tests.e2e.people import everyone_is_ready, poll
from tests.faults.damage import READERS, damage_one_batch, publish, reported_by_all, skip
from tests.faults.databases import rows
from tests.faults.harness import System
from tests.faults.watch import PER_SECOND, wait_for_answers, watching
from tests.integration.chassis.path import transaction

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("unreadable")]

RESTARTED: Final = pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
_KEPT_SETTINGS: Final = (
    "min.insync.replicas",
    "max.message.bytes",
    "retention.ms",
    "retention.bytes",
    "cleanup.policy",
    "message.timestamp.after.max.ms",
)


class TestATransactionOfAnotherProducer:
    @RESTARTED
    async def test_that_commits_is_handled_to_the_marker_behind_it(
        self, system: System, *, restarted: bool
    ) -> None:
        async with (
            stopped_if(system, READERS, restarted=restarted),
            transaction(system.cluster.kafka_bootstrap) as producer,
        ):
            published = await publish(system, producer)
        async with no_process_ends(system):
            pass

        assert await audited(system, published) == 1

    @RESTARTED
    async def test_that_aborts_leaves_nothing(self, system: System, *, restarted: bool) -> None:
        async with (
            stopped_if(system, READERS, restarted=restarted),
            transaction(system.cluster.kafka_bootstrap, commits=False) as producer,
        ):
            published = await publish(system, producer)
        async with no_process_ends(system):
            pass

        assert await audited(system, published) == 0

    @RESTARTED
    async def test_that_is_open_is_reported_and_hides_what_follows_until_it_ends(
        self, system: System, *, restarted: bool
    ) -> None:
        async with transaction(system.cluster.kafka_bootstrap) as producer:
            async with stopped_if(system, READERS, restarted=restarted):
                published = await publish(system, producer)
            async with watching(system) as watch, system.workload.at(PER_SECOND):
                for each in READERS:
                    await watch.until_reported(each, "agents", "an open transaction hides")
                await wait_for_answers(system)
                await asyncio.sleep(0 if restarted else STUCK_AFTER_S + 5)
                assert not watch.restarts
            assert await audited(system, published) == 0
        async with no_process_ends(system):
            pass

        assert await audited(system, published) == 1


class TestACodec:
    @RESTARTED
    async def test_that_the_broker_uses_is_read(self, system: System, *, restarted: bool) -> None:
        for codec in ("lz4", "zstd", "snappy", "gzip"):
            await compress(system, codec)
            async with no_process_ends(system):
                pass
        async with stopped_if(system, READERS, restarted=restarted):
            pass
        await compress(system, "producer")
        async with no_process_ends(system):
            pass


class TestAFlippedBit:
    @RESTARTED
    @pytest.mark.parametrize("broker", ["running", "stopped"])
    async def test_stops_its_partition_only_until_an_operator_skips_its_batch(
        self, system: System, broker: str, *, restarted: bool
    ) -> None:
        async with stopped_if(system, READERS, restarted=True):
            offset = await damage_one_batch(system, broker)
        reason = f"users.user[0] can't be read at offset {offset}: its CRC does not match"
        await reported_by_all(system, reason)
        if restarted:
            async with stopped_if(system, READERS, restarted=True):
                pass
            await reported_by_all(system, reason)

        async with watching(system) as watch, system.workload.at(PER_SECOND):
            await wait_for_answers(system)
            for each in READERS:
                await skip(system, each, offset)
            await wait_for_answers(system)
            assert not watch.restarts
        async with no_process_ends(system):
            pass

        skipped = await rows(system, "audit", "SELECT * FROM skipped_batches")
        assert skipped[-1]["begin_offset"] == offset
        assert skipped[-1]["raw"] is not None
        (acts,) = await rows(
            system,
            "audit",
            "SELECT count(*) FROM records WHERE type = 'operations.batch-skipped.v1'",
        )
        assert acts["count"] >= len(READERS)


@asynccontextmanager
async def stopped_if(
    system: System, services: Sequence[str], *, restarted: bool
) -> AsyncIterator[None]:
    """Stop services while the block runs, if they are to be restarted; they are ready after it."""
    for each in services if restarted else ():
        await asyncio.to_thread(system.cluster.stop, each)
    try:
        yield
    finally:
        for each in services if restarted else ():
            await asyncio.to_thread(system.cluster.resume, each)
    await poll(lambda: everyone_is_ready(system.cluster))


@asynccontextmanager
async def no_process_ends(system: System) -> AsyncIterator[None]:
    """Sign people up until all is well, and assert that no process ended and nothing is lost."""
    async with watching(system) as watch:
        async with system.workload.at(PER_SECOND):
            yield
            await wait_for_answers(system)
        await watch.until_well()
        assert not watch.restarts
    await system.assert_nothing_is_lost()


async def audited(system: System, published: tuple[str, int]) -> int:
    (found,) = await rows(
        system, "audit", "SELECT count(*) FROM records WHERE subject = $1", published[0]
    )
    return int(found["count"])


async def compress(system: System, codec: str) -> None:
    """Let the broker compress what comes to the topic; all its settings are set again."""
    async with admin_client(system.cluster.kafka_bootstrap) as admin:
        state = (await topic_states(admin, [USERS_USER.name]))[USERS_USER.name]
        assert state is not None
        config = {name: state.config[name] for name in _KEPT_SETTINGS}
        config["compression.type"] = codec
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, USERS_USER.name, config)]
        )
