"""People and moments for the tests of the users service."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from chassis.correlation import new_id
from users_service.domain.task import Task, TaskName
from users_service.domain.user import User
from users_service.domain.values import Alias, EmailAddress, PasswordHash, Username

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A_HASH = PasswordHash("a hash")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time

    def move(self, **by: float) -> None:
        self.time += timedelta(**by)


def someone(
    username: str = "kate",
    *,
    email: str | None = None,
    password_hash: PasswordHash = A_HASH,
    alias: str | None = None,
) -> User:
    """Someone who has just signed up, and is not stored yet."""
    return User.sign_up(
        new_id(),
        username=Username.parse(username),
        email=EmailAddress.parse(email or f"{username}@example.com"),
        password_hash=password_hash,
        alias=Alias.parse(alias) if alias else None,
        now=NOW,
    )


def a_task(assignee_id: UUID, name: str = "Read the manual") -> Task:
    return Task.create(new_id(), name=TaskName.parse(name), assignee_id=assignee_id, now=NOW)
