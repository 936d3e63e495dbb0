"""Users and tasks in PostgreSQL, and the unit of work that saves them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from chassis.domain import DomainError
from chassis.persistence.aggregate_table import AggregateTable
from chassis.persistence.database import Connection, Row
from chassis.persistence.idempotency_keys import PostgresIdempotencyKeys
from chassis.persistence.outbox import Outbox
from contracts.topics import USERS_TASK, USERS_USER
from users_service.adapters import tables
from users_service.application import integration_events
from users_service.domain.errors import EmailIsTaken, UsernameIsTaken
from users_service.domain.task import Task, TaskName
from users_service.domain.user import Identity, Role, User
from users_service.domain.values import Alias, EmailAddress, PasswordHash, Username

SOURCE = "/users"


class PostgresUsers(AggregateTable[User]):
    table = tables.users
    topic = USERS_USER
    translate = staticmethod(integration_events.translate)
    conflicts: ClassVar[Mapping[str, type[DomainError]]] = {
        "users_username_key": UsernameIsTaken,
        "users_email_key": EmailIsTaken,
    }

    def to_row(self, aggregate: User) -> dict[str, Any]:
        identity = aggregate.identity
        return {
            "username": identity.username.value,
            "email": identity.email.value,
            "password_hash": identity.password_hash.value,
            "alias": identity.alias.value if identity.alias else None,
            "active": aggregate.active,
            "roles": " ".join(sorted(aggregate.roles)),
            "created_at": aggregate.created_at,
        }

    def from_row(self, row: Row) -> User:
        return User(
            row.id,
            Identity(
                Username(row.username),
                EmailAddress(row.email),
                PasswordHash(row.password_hash),
                Alias(row.alias) if row.alias is not None else None,
            ),
            created_at=row.created_at,
            active=row.active,
            roles=frozenset(map(Role, row.roles.split())),
            version=row.version,
            sequence=row.sequence,
        )


class PostgresTasks(AggregateTable[Task]):
    table = tables.tasks
    topic = USERS_TASK
    translate = staticmethod(integration_events.translate)

    def to_row(self, aggregate: Task) -> dict[str, Any]:
        return {
            "name": aggregate.name.value,
            "assignee_id": aggregate.assignee_id,
            "created_at": aggregate.created_at,
        }

    def from_row(self, row: Row) -> Task:
        return Task(
            row.id,
            name=TaskName(row.name),
            assignee_id=row.assignee_id,
            created_at=row.created_at,
            version=row.version,
            sequence=row.sequence,
        )


class PostgresUsersWork:
    """One transaction on the service's database."""

    def __init__(self, connection: Connection, now: Callable[[], datetime]) -> None:
        self._connection = connection
        self._outbox = Outbox(SOURCE, now)
        self.users = PostgresUsers(connection, self._outbox)
        self.tasks = PostgresTasks(connection, self._outbox)
        self.idempotency_keys = PostgresIdempotencyKeys(connection)

    async def flush(self) -> None:
        await self.users.flush()
        await self.tasks.flush()
        await self._outbox.flush(self._connection)
