"""What is waited for, what is held against the event, and what stops everything."""

from uuid import uuid4

import asyncpg
import pytest

from chassis.consuming import retry_policy
from chassis.consuming.retry_policy import Cause, Failures, cause_of, is_transient
from chassis.domain import DomainError, Kind
from chassis.persistence.database import Database, NoConnectionFree
from chassis.persistence.transactor import StaleAggregate

# No server listens there: a probe of this database fails.
AWAY = Database("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test")


def refusal(kind: Kind) -> DomainError:
    class Refusal(DomainError):
        code = "refused"

    Refusal.kind = kind
    return Refusal("no")


class TestPermanent:
    @pytest.mark.parametrize("kind", list(Kind))
    async def test_is_a_refusal_that_does_not_depend_on_the_moment(self, kind: Kind) -> None:
        of_the_moment = {Kind.UNAUTHENTICATED, Kind.TOO_MANY, Kind.UNAVAILABLE}

        cause = await cause_of(refusal(kind), 1, AWAY)

        assert (cause is Cause.EVENT) is (kind not in of_the_moment)

    async def test_is_no_unknown_error(self) -> None:
        assert await cause_of(LookupError(), 1, AWAY) is Cause.UNKNOWN


class TestTransient:
    @pytest.mark.parametrize(
        "error",
        [
            StaleAggregate(),
            asyncpg.SerializationError(),
            asyncpg.DeadlockDetectedError(),
            asyncpg.DiskFullError(),
            asyncpg.TooManyConnectionsError(),
            asyncpg.ReadOnlySQLTransactionError(),
            asyncpg.CannotConnectNowError(),
            NoConnectionFree(),
            ConnectionRefusedError(),
            TimeoutError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_is_what_is_no_fault_of_the_event(self, error: Exception) -> None:
        assert await is_transient(error, 1, AWAY)

    @pytest.mark.parametrize(
        "error",
        [LookupError(), asyncpg.UniqueViolationError(), refusal(Kind.UNAVAILABLE)],
        ids=lambda error: type(error).__name__,
    )
    async def test_is_nothing_that_the_event_may_have_caused(self, error: Exception) -> None:
        assert not await is_transient(error, 1, AWAY)

    async def test_is_a_conflict_however_often(self) -> None:
        assert await is_transient(StaleAggregate(), 100_000, AWAY)

    async def test_is_a_database_that_is_away_however_long(self) -> None:
        assert await is_transient(ConnectionRefusedError(), 100_000, AWAY)


class TestFailures:
    async def test_contention_is_contention_however_often(self) -> None:
        failures = Failures(AWAY)

        causes = {await failures.add(asyncpg.SerializationError()) for _ in range(1_000)}

        assert causes == {Cause.CONTENTION}

    @pytest.mark.parametrize(
        "error",
        [
            asyncpg.SerializationError(),
            asyncpg.DeadlockDetectedError(),
            asyncpg.LockNotAvailableError(),
            StaleAggregate(),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_another_transaction_in_the_way_is_contention(self, error: Exception) -> None:
        assert await Failures(AWAY).add(error) is Cause.CONTENTION

    async def test_an_aggregate_whose_version_moves_on_is_contention(self) -> None:
        failures, id_ = Failures(AWAY), uuid4()

        causes = [await failures.add(StaleAggregate("t", {id_: n})) for n in range(100)]

        assert set(causes) == {Cause.CONTENTION}

    async def test_an_aggregate_that_is_stale_in_the_version_of_the_last_try_is_not(self) -> None:
        failures, stale, other = Failures(AWAY), uuid4(), uuid4()

        first = await failures.add(StaleAggregate("t", {stale: 3, other: 1}))
        second = await failures.add(StaleAggregate("t", {stale: 3, other: 2}))

        assert (first, second) == (Cause.CONTENTION, Cause.UNKNOWN)

    async def test_it_is_known_since_when_contention_is_the_only_cause(self) -> None:
        failures = Failures(AWAY)

        await failures.add(StaleAggregate())
        since = failures.contention_since
        await failures.add(StaleAggregate())
        unbroken = failures.contention_since
        await failures.add(LookupError())

        assert since is not None
        assert unbroken == since
        assert failures.contention_since is None


class TestPausing:
    @pytest.mark.parametrize("times", [1, 10, 100_000])
    def test_has_a_bound_however_often(self, times: int) -> None:
        assert 0 <= retry_policy.BACKOFF.pause_s(times) <= 5
