"""Users, tasks and times for the tests of the users service."""

from datetime import UTC, datetime
from uuid import UUID

from chassis.correlation import new_id
from users_service.domain.task import Task, TaskName
from users_service.domain.user import Identity, User
from users_service.domain.values import Alias, EmailAddress, PasswordHash, Username

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A_HASH = PasswordHash("a hash")


def a_user(
    username: str = "kate",
    *,
    email: str | None = None,
    password_hash: PasswordHash = A_HASH,
    alias: str | None = None,
) -> User:
    """A user who has just signed up, and is not stored yet."""
    identity = Identity(
        Username.parse(username),
        EmailAddress.parse(email or f"{username}@example.com"),
        password_hash,
        Alias.parse(alias) if alias else None,
    )
    return User.sign_up(new_id(), identity, NOW)


def a_task(assignee_id: UUID, name: str = "Read the manual") -> Task:
    return Task.create(new_id(), name=TaskName.parse(name), assignee_id=assignee_id, now=NOW)
