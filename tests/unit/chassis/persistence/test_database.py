"""Which errors mean that the database is away, and which are mistakes in the code."""

import asyncpg
import pytest

from chassis.persistence.database import is_away

AWAY = (
    ConnectionRefusedError("no server listens"),
    TimeoutError("no answer"),
    asyncpg.AdminShutdownError("the server stops"),
    asyncpg.CannotConnectNowError("the server is starting"),
    asyncpg.IdleSessionTimeoutError("the client was frozen"),
    asyncpg.TooManyConnectionsError("the server is full"),
    asyncpg.InterfaceError("the connection is closed"),
    asyncpg.InternalClientError("the protocol is out of sync"),
)
MISTAKES = (
    asyncpg.PostgresSyntaxError("a wrong statement"),
    asyncpg.UndefinedTableError("a missing table"),
    asyncpg.UniqueViolationError("a violated constraint"),
    asyncpg.exceptions._base.DataError("a value that does not fit its parameter"),
    ValueError("not from a database"),
)


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_an_error_of_a_server_that_is_gone_or_unwell_is_waited_out(error: Exception) -> None:
    assert is_away(error)


@pytest.mark.parametrize("error", MISTAKES, ids=lambda error: type(error).__name__)
def test_a_mistake_in_the_code_is_not_waited_out(error: Exception) -> None:
    assert not is_away(error)
