"""PostgreSQL dies, stops, ends sessions, is slow, is restored: nothing is lost or done twice."""

import asyncio
import random
import time
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx
import pytest

from chassis.testing import eventually
from tests.declared import declared
from tests.e2e.people import Person, everyone_is_ready
from tests.faults.databases import copy_database, execute, restore_database, rows, superuser
from tests.faults.harness import System, running_system
from tests.faults.producing import append_to_outbox, sign_up_of, withheld
from tests.faults.watch import stopped, under_load, wait_for_answers
from verification.addresses import SERVICES as WITH_DATABASE
from verification.report import Expected
from verification.verify import verify

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("postgres-faults")]

DATABASE_AWAY: Final = "the database is away"
_TERMINATE_EVERY_S: Final = 0.1
_POLL_EVERY_S: Final = 0.02

_SESSIONS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND usename = ANY ($1::text[])
"""
_TERMINATE: Final = "SELECT pg_terminate_backend($1)"
_TERMINATE_COMMITTING: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = 'users' AND state = 'active' AND query LIKE 'COMMIT%' LIMIT 1
"""
_COMMITTED: Final = """
    SELECT FROM pg_stat_activity
    WHERE wait_event = 'SyncRep' AND usename = 'users' AND query LIKE 'COMMIT%'
"""
_TERMINATE_COMMITTED: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'
"""
_SLOW_COMMIT: Final = """
    CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON users
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit();
"""


class TestPostgres:
    async def test_is_restarted_in_order(self, system: System) -> None:
        async with under_load(system) as watch, stopped(system, "postgres"):
            pass

        assert not watch.restarts.keys() - {"postgres"}

    async def test_is_killed(self, system: System) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("postgres")

        assert watch.restarts == {"postgres": 1}

    async def test_is_stopped_for_long(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch, stopped(system, "postgres"):
            before = len(system.workload.promised)
            await asyncio.sleep(outage_s)
            answered_meanwhile = len(system.workload.promised) - before
            for each in WITH_DATABASE:
                await watch.until_reported(each, "relay", DATABASE_AWAY)
            await watch.until_reported("gateway", "users", "not ready")

        assert answered_meanwhile == 0
        assert watch.not_ready.keys() == set(WITH_DATABASE)
        assert all("database" in answer.reasons for answer in watch.not_ready.values())
        assert not watch.restarts.keys() - {"postgres"}


class TestSessionsThatAreTerminated:
    async def test_one_by_one(self, system: System, outage_s: float) -> None:
        terminated = 0
        async with under_load(system) as watch, superuser(system) as connection:
            until = time.monotonic() + outage_s / 2
            while time.monotonic() < until:
                sessions = await connection.fetch(_SESSIONS, list(WITH_DATABASE))
                if sessions:
                    session = random.choice(sessions)  # noqa: S311
                    terminated += await connection.fetchval(_TERMINATE, session["pid"])
                await asyncio.sleep(_TERMINATE_EVERY_S)

        assert terminated > 20
        assert not watch.restarts

    async def test_exactly_during_commit_and_before_it_took_effect(self, system: System) -> None:
        async with superuser(system) as connection:
            await execute(system, "users", _SLOW_COMMIT)
            terminated = 0
            async with under_load(system) as watch:
                while terminated < 10:
                    terminated += await connection.fetchval(_TERMINATE_COMMITTING) is True
                    # Between them others commit, so that each command succeeds in some attempt.
                    await asyncio.sleep(10 * _POLL_EVERY_S)
                await execute(system, "users", "DROP FUNCTION slow_commit CASCADE")

        assert not watch.restarts

    async def test_exactly_during_commit_and_after_it_took_effect(self, system: System) -> None:
        answers: list[int] = []
        async with superuser(system) as connection, under_load(system) as watch:
            for _ in range(5):
                # Without the standby, a session that has committed waits before it answers.
                await connection.execute("ALTER SYSTEM SET synchronous_standby_names TO 'missing'")
                await connection.execute("SELECT pg_reload_conf()")
                signing_up = [asyncio.create_task(sign_up_without_key(system)) for _ in range(6)]
                # More than the agents alone can be. There is no event to wait for.
                while len(await connection.fetch(_COMMITTED)) < 6:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_EVERY_S)
                await connection.fetch(_TERMINATE_COMMITTED)
                await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
                await connection.execute("SELECT pg_reload_conf()")
                answers += await asyncio.gather(*signing_up)

        # A command that is done twice finds the username taken by itself.
        assert httpx.codes.CREATED in answers
        assert httpx.codes.CONFLICT not in answers
        assert not watch.restarts


class TestAnswersOfPostgres:
    async def test_that_are_slow_have_no_other_consequence(
        self, system: System, outage_s: float
    ) -> None:
        async with under_load(system) as watch:
            for point in (
                "command.before-commit",
                "command.after-commit",
                "chunk.before-commit",
                "chunk.after-commit",
                "relay.before-delete",
            ):
                system.failpoints.arm(point, "always delay 0.4")
            await asyncio.sleep(outage_s / 2)
            system.failpoints.disarm()

        assert max(system.workload.latencies_s) > 0.8
        assert not watch.not_ready
        assert not watch.restarts

    async def test_that_are_too_slow_are_requested_again(self, system: System) -> None:
        async with under_load(system) as watch:
            # The server ends a session that is idle in its transaction for 4 s.
            for each in WITH_DATABASE:
                system.failpoints.arm("chunk.before-commit", "delay 6", service=each)
            await wait_for_answers(system, 20)

        assert all(
            system.failpoints.was_hit("chunk.before-commit", service=s) for s in WITH_DATABASE
        )
        assert not watch.not_ready
        assert not watch.restarts


class TestAnOlderCopy:
    async def test_of_a_consumer_catches_up_from_its_own_progress(self, system: System) -> None:
        async with under_load(system) as watch:
            await copy_database(system, "audit")
            (copied,) = await rows(system, "audit", "SELECT count(*) FROM records")
            await wait_for_answers(system, 20)

            async def has_more() -> bool:
                (now,) = await rows(system, "audit", "SELECT count(*) FROM records")
                return int(now["count"]) > int(copied["count"]) + 20

            await eventually(has_more, within_s=60)
            await restore_database(system, "audit")

        assert watch.not_ready.keys() == {"audit"}

    async def test_of_a_producer_makes_a_fork_that_every_consumer_detects(
        self, tmp_path: Path
    ) -> None:
        with running_system(tmp_path) as system:
            await system.workload.sign_up(20)
            await system.assert_nothing_is_lost()
            user = next(iter(system.workload.promised))
            await copy_database(system, "users")
            await eventually(lambda: everyone_is_ready(system.cluster), within_s=60)
            await append_to_outbox(system, user, {2: withheld()})
            await wait_for_records(system, user, 2)

            await restore_database(system, "users")
            await eventually(lambda: everyone_is_ready(system.cluster), within_s=60)
            await system.workload.sign_up(20)
            await append_to_outbox(system, user, {2: sign_up_of(user)})

            records = await wait_for_records(system, user, 3)
            assert [each["verdict"] for each in records] == ["next", "next", "forked"]
            for service in declared("users", "accounts", "notification"):
                assert await wait_for_parked(system, service) == [(str(user), "forked")]
            expected = Expected(
                users=frozenset(system.workload.promised),
                parked=True,
                made_up=frozenset({str(user)}),
            )
            report = await verify(system.addresses, expected)
            assert report.holds, report.broken()


async def sign_up_without_key(system: System) -> int:
    """Sign someone up with a single request, and return the status of the answer."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=30) as gateway:
        person = Person(gateway)
        status = (await person.sign_up()).status_code
    if status == httpx.codes.CREATED:
        system.workload.promised[UUID(person.id)] = person.username
    else:
        system.workload.cut_off.add(person.username)
    return status


async def wait_for_parked(system: System, service: str) -> list[tuple[str, str]]:
    """Wait until a service has parked something; return the subjects and the reasons."""
    found: list[tuple[str, str]] = []

    async def are_there() -> bool:
        parked = await rows(system, service, "SELECT subject, reason FROM parked")
        found[:] = [(each["subject"], each["reason"]) for each in parked]
        return bool(found)

    await eventually(are_there, within_s=60)
    return found


async def wait_for_records(system: System, subject: UUID, number: int) -> list[dict[str, object]]:
    """Wait for so many audit records of a subject, and return them in order."""
    found: list[dict[str, object]] = []

    async def are_there() -> bool:
        records = await rows(
            system,
            "audit",
            "SELECT sequence, verdict FROM records WHERE subject = $1 AND topic = 'users.user'"
            " ORDER BY position",
            str(subject),
        )
        found[:] = [dict(each) for each in records]
        return len(found) >= number

    await eventually(are_there, within_s=60)
    return found
