"""PostgreSQL dies, is away, cuts sessions, is slow, is set back: nothing is lost or doubled."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx
import pytest

from chassis.testing import eventually
from tests.e2e.people import Person, everyone_is_ready
from tests.faults.databases import ask, copy_database, restore_database, run, superuser
from tests.faults.harness import System, running_system
from tests.faults.producing import nobody_waits_for, sign_up_of, tell
from tests.faults.watch import answered, away, under_load
from verification.report import Expected
from verification.verify import verify

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("postgres-faults")]

WITH_DATABASE: Final = ("users", "accounts", "audit", "notification")
AWAY: Final = "the database is away"
_CUT_EVERY_S: Final = 0.1
_LOOK_EVERY_S: Final = 0.02

_SESSIONS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND usename = ANY ($1::text[])
"""
_CUT: Final = "SELECT pg_terminate_backend($1)"
_CUT_WHO_COMMITS: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = 'users' AND state = 'active' AND query LIKE 'COMMIT%' LIMIT 1
"""
_HAVE_COMMITTED: Final = """
    SELECT FROM pg_stat_activity
    WHERE wait_event = 'SyncRep' AND usename = 'users' AND query LIKE 'COMMIT%'
"""
_CUT_WHO_HAVE_COMMITTED: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'
"""
_SLOW_COMMIT: Final = """
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON users
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle();
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all faults: each finds it as those before have left it."""
    with running_system(tmp_path_factory.mktemp("postgres-faults")) as system:
        yield system


class TestPostgres:
    async def test_is_restarted_in_order(self, system: System) -> None:
        async with under_load(system) as watch, away(system, "postgres"):
            pass

        assert not watch.restarts.keys() - {"postgres"}

    async def test_is_killed(self, system: System) -> None:
        async with under_load(system) as watch:
            system.cluster.kill("postgres")

        assert watch.restarts == {"postgres": 1}

    async def test_is_away_for_long(self, system: System, outage_s: float) -> None:
        async with under_load(system) as watch, away(system, "postgres"):
            before = len(system.workload.promised)
            await asyncio.sleep(outage_s)
            answered_meanwhile = len(system.workload.promised) - before
            for each in WITH_DATABASE:
                await watch.until_said(each, "relay", AWAY)
            await watch.until_said("gateway", "users", "not ready")

        assert answered_meanwhile == 0
        assert watch.not_ready.keys() == set(WITH_DATABASE)
        assert all("database" in said.reasons for said in watch.not_ready.values())
        assert not watch.restarts.keys() - {"postgres"}


class TestSessionsThatAreCut:
    async def test_one_by_one(self, system: System, outage_s: float) -> None:
        cut = 0
        async with under_load(system) as watch, superuser(system) as connection:
            until = time.monotonic() + outage_s / 2
            while time.monotonic() < until:
                sessions = await connection.fetch(_SESSIONS, list(WITH_DATABASE))
                if sessions:
                    cut += await connection.fetchval(_CUT, random.choice(sessions)["pid"])  # noqa: S311
                await asyncio.sleep(_CUT_EVERY_S)

        assert cut > 20
        assert not watch.restarts

    async def test_exactly_during_commit_and_before_it_took_effect(self, system: System) -> None:
        async with superuser(system) as connection:
            await run(system, "users", _SLOW_COMMIT)
            cut = 0
            async with under_load(system) as watch:
                while cut < 10:
                    cut += await connection.fetchval(_CUT_WHO_COMMITS) is True
                    # Others get through meanwhile, so that each comes to its end in some try.
                    await asyncio.sleep(10 * _LOOK_EVERY_S)
                await run(system, "users", "DROP FUNCTION dawdle CASCADE")

        assert not watch.restarts

    async def test_exactly_during_commit_and_after_it_took_effect(self, system: System) -> None:
        answers: list[int] = []
        async with superuser(system) as connection, under_load(system) as watch:
            for _ in range(5):
                # With nobody to replicate to, whoever has committed waits with the answer.
                await connection.execute("ALTER SYSTEM SET synchronous_standby_names TO 'nobody'")
                await connection.execute("SELECT pg_reload_conf()")
                signing_up = [asyncio.create_task(sign_up_without_key(system)) for _ in range(6)]
                # More than the agents alone can be; PostgreSQL tells nobody of it.
                while len(await connection.fetch(_HAVE_COMMITTED)) < 6:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_EVERY_S)
                await connection.fetch(_CUT_WHO_HAVE_COMMITTED)
                await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
                await connection.execute("SELECT pg_reload_conf()")
                answers += await asyncio.gather(*signing_up)

        # Done twice, it would find the name taken: by itself.
        assert httpx.codes.CREATED in answers
        assert httpx.codes.CONFLICT not in answers
        assert not watch.restarts


class TestAnswers:
    async def test_that_are_slow_slow_everything_down_and_no_more(
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

    async def test_that_are_too_slow_are_asked_for_again(self, system: System) -> None:
        async with under_load(system) as watch:
            # The server ends a session that is idle in its transaction for 4 s.
            for each in WITH_DATABASE:
                system.failpoints.arm("chunk.before-commit", "delay 6", service=each)
            await answered(system, 20)

        assert all(
            system.failpoints.was_hit("chunk.before-commit", service=s) for s in WITH_DATABASE
        )
        assert not watch.not_ready
        assert not watch.restarts


class TestAnOlderCopy:
    async def test_of_a_consumer_catches_up_from_its_own_progress(self, system: System) -> None:
        async with under_load(system) as watch:
            await copy_database(system, "audit")
            (copied,) = await ask(system, "audit", "SELECT count(*) FROM records")
            await answered(system, 20)

            async def has_more() -> bool:
                (now,) = await ask(system, "audit", "SELECT count(*) FROM records")
                return int(now["count"]) > int(copied["count"]) + 20

            await eventually(has_more, within_s=60)
            await restore_database(system, "audit")

        assert watch.not_ready.keys() == {"audit"}

    async def test_of_a_producer_makes_a_fork_that_everyone_sees(self, tmp_path: Path) -> None:
        with running_system(tmp_path) as system:
            await system.workload.sign_up(20)
            await system.assert_nothing_is_lost()
            user = next(iter(system.workload.promised))
            await copy_database(system, "users")
            await eventually(lambda: everyone_is_ready(system.cluster), within_s=60)
            await tell(system, user, {2: nobody_waits_for()})
            await until_audit_has(system, user, 2)

            await restore_database(system, "users")
            await eventually(lambda: everyone_is_ready(system.cluster), within_s=60)
            await system.workload.sign_up(20)
            await tell(system, user, {2: sign_up_of(user)})

            records = await until_audit_has(system, user, 3)
            assert [each["verdict"] for each in records] == ["next", "next", "forked"]
            for service in ("users", "accounts", "notification"):
                assert await until_parked(system, service) == [(str(user), "forked")]
            expected = Expected(
                users=frozenset(system.workload.promised),
                parked=True,
                made_up=frozenset({str(user)}),
            )
            report = await verify(system.addresses, expected)
            assert report.holds, report.broken()


async def sign_up_without_key(system: System) -> int:
    """Sign someone up who asks once only, and return the status of the answer."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=30) as gateway:
        person = Person(gateway)
        status = (await person.sign_up()).status_code
    if status == httpx.codes.CREATED:
        system.workload.promised[UUID(person.id)] = person.username
    else:
        system.workload.cut_off.add(person.username)
    return status


async def until_parked(system: System, service: str) -> list[tuple[str, str]]:
    """Wait until a service has parked something, and return whose events, and why."""
    found: list[tuple[str, str]] = []

    async def are_there() -> bool:
        rows = await ask(system, service, "SELECT subject, reason FROM parked")
        found[:] = [(each["subject"], each["reason"]) for each in rows]
        return bool(found)

    await eventually(are_there, within_s=60)
    return found


async def until_audit_has(system: System, subject: UUID, number: int) -> list[dict[str, object]]:
    """Wait for so many audit records of a subject, and return them as they came."""
    found: list[dict[str, object]] = []

    async def are_there() -> bool:
        rows = await ask(
            system,
            "audit",
            "SELECT sequence, verdict FROM records WHERE subject = $1 AND topic = 'users.user'"
            " ORDER BY position",
            str(subject),
        )
        found[:] = [dict(each) for each in rows]
        return len(found) >= number

    await eventually(are_there, within_s=60)
    return found
