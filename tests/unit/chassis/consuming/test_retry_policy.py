"""What is waited for, what is held against the event, and what stops everything."""

import asyncpg
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from chassis.consuming import retry_policy
from chassis.consuming.dead_letters import ParkedSubject
from chassis.consuming.retry_policy import (
    DeadLetterLimit,
    LimitExceeded,
    is_permanent,
    is_transient,
)
from chassis.domain import DomainError, Kind
from chassis.persistence.transactor import StaleAggregate

# No server listens there: a probe of this database fails.
AWAY = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")


def refusal(kind: Kind) -> DomainError:
    class Refusal(DomainError):
        code = "refused"

    Refusal.kind = kind
    return Refusal("no")


class TestPermanent:
    @pytest.mark.parametrize("kind", list(Kind))
    def test_is_a_refusal_by_a_rule_that_does_not_depend_on_the_moment(self, kind: Kind) -> None:
        of_the_moment = {Kind.UNAUTHENTICATED, Kind.TOO_MANY, Kind.UNAVAILABLE}

        assert is_permanent(refusal(kind)) is (kind not in of_the_moment)

    def test_is_no_unknown_error(self) -> None:
        assert not is_permanent(LookupError())


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
            PoolTimeoutError(),
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

    async def test_is_no_conflict_without_end(self) -> None:
        assert not await is_transient(StaleAggregate(), 100, AWAY)

    async def test_is_a_database_that_is_away_however_long(self) -> None:
        assert await is_transient(ConnectionRefusedError(), 100_000, AWAY)


class TestTheDeadLetterLimit:
    def test_is_many_subjects_with_one_error(self) -> None:
        lately = DeadLetterLimit("t")
        lately.add([ParkedSubject(f"{n}", "x") for n in range(retry_policy.DEAD_LETTER_LIMIT)])

        with pytest.raises(LimitExceeded, match="51 aggregates of t would park with x"):
            lately.add([ParkedSubject("one more", "x")])

    def test_is_not_many_errors_of_one_subject(self) -> None:
        DeadLetterLimit("t").add([ParkedSubject("ada", "x")] * 500)

    def test_is_not_many_errors_each_another(self) -> None:
        DeadLetterLimit("t").add([ParkedSubject(f"{n}", f"{n}") for n in range(500)])

    def test_is_forgotten_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lately = DeadLetterLimit("t")
        lately.add([ParkedSubject(f"{n}", "x") for n in range(retry_policy.DEAD_LETTER_LIMIT)])
        monkeypatch.setattr(retry_policy, "_LIMIT_WITHIN_S", -1.0)

        lately.add([ParkedSubject("one more", "x")])


class TestPausing:
    @pytest.mark.parametrize("times", [1, 10, 100_000])
    def test_has_a_bound_however_often(self, times: int) -> None:
        assert 0 <= retry_policy.BACKOFF.pause_s(times) <= 5
