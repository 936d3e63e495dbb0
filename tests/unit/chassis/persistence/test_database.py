"""What is told from an error: a database to wait for, or a mistake of ours."""

import asyncpg
import pytest

from chassis.persistence.database import is_away

AWAY = (
    ConnectionRefusedError("nobody listens"),
    TimeoutError("no answer"),
    asyncpg.AdminShutdownError("the server stops"),
    asyncpg.CannotConnectNowError("the server is starting"),
    asyncpg.IdleSessionTimeoutError("we were frozen"),
    asyncpg.TooManyConnectionsError("the server is full"),
    asyncpg.InterfaceError("the connection is closed"),
    asyncpg.InternalClientError("the connection is out of step"),
)
OURS = (
    asyncpg.PostgresSyntaxError("a statement that is none"),
    asyncpg.UndefinedTableError("a table that is not there"),
    asyncpg.UniqueViolationError("a rule that is broken"),
    ValueError("no matter of a database"),
)


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_a_server_that_is_gone_or_unwell_is_waited_for(error: Exception) -> None:
    assert is_away(error)


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_a_mistake_of_ours_is_not_waited_out(error: Exception) -> None:
    assert not is_away(error)
