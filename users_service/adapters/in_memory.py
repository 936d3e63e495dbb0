"""The service's ports kept in memory, for tests; they keep the promises of the real ones."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from chassis.domain import DomainEvent
from chassis.persistence.idempotency_keys import InMemoryIdempotencyKeys
from chassis.persistence.outbox import Outbox, OutboxRow
from contracts.topics import USERS_TASK, USERS_USER, Topic
from users_service.application.integration_events import Event, translate
from users_service.application.ports import Attempts, Credentials, IssuedToken, Profile, TaskView
from users_service.domain.errors import EmailIsTaken, UsernameIsTaken
from users_service.domain.task import Task
from users_service.domain.user import Role, User
from users_service.domain.values import EmailAddress, Password, PasswordHash, Username

T = TypeVar("T")


@dataclass
class Stored:
    """All that has been committed."""

    users: dict[UUID, User] = field(default_factory=dict)
    tasks: dict[UUID, Task] = field(default_factory=dict)
    outbox: list[OutboxRow] = field(default_factory=list)
    idempotency_keys: InMemoryIdempotencyKeys = field(default_factory=InMemoryIdempotencyKeys)


class InMemoryUsers:
    def __init__(self, users: dict[UUID, User], outbox: Outbox) -> None:
        self._users = users
        self._outbox = outbox
        self._saved: dict[UUID, User] = {}

    def save(self, user: User, /) -> list[DomainEvent]:
        self._saved[user.id] = user
        return _tell(user, USERS_USER, self._outbox)

    async def load(self, ids: Iterable[UUID], /) -> Mapping[UUID, User]:
        return {id_: self._users[id_] for id_ in ids if id_ in self._users}

    async def flush(self) -> None:
        for user in self._saved.values():
            others = [other for other in self._users.values() if other.id != user.id]
            if user.username in (other.username for other in others):
                raise UsernameIsTaken
            if user.email in (other.email for other in others):
                raise EmailIsTaken
            user.version += 1
            self._users[user.id] = user
        self._saved.clear()


class InMemoryTasks:
    def __init__(self, tasks: dict[UUID, Task], outbox: Outbox) -> None:
        self._tasks = tasks
        self._outbox = outbox
        self._saved: dict[UUID, Task] = {}

    def save(self, task: Task, /) -> list[DomainEvent]:
        self._saved[task.id] = task
        return _tell(task, USERS_TASK, self._outbox)

    async def load(self, ids: Iterable[UUID], /) -> Mapping[UUID, Task]:
        return {id_: self._tasks[id_] for id_ in ids if id_ in self._tasks}

    async def flush(self) -> None:
        for task in self._saved.values():
            task.version += 1
            self._tasks[task.id] = task
        self._saved.clear()


def _tell(aggregate: User | Task, topic: Topic, outbox: Outbox) -> list[DomainEvent]:
    recorded = list(aggregate.take_events())
    for event in recorded:
        assert isinstance(event, Event)  # noqa: S101 - what a user or a task records
        told = translate(event)
        if told is not None:
            aggregate.sequence += 1
            outbox.append(
                told,
                topic=topic,
                subject=aggregate.id,
                sequence=aggregate.sequence,
                occurred_at=event.occurred_at,
            )
    return recorded


class InMemoryUsersWork:
    def __init__(self, stored: Stored, now: Callable[[], datetime]) -> None:
        self.stored = stored
        self._outbox = Outbox("/users", now)
        self.users = InMemoryUsers(stored.users, self._outbox)
        self.tasks = InMemoryTasks(stored.tasks, self._outbox)
        self.idempotency_keys = stored.idempotency_keys

    async def flush(self) -> None:
        await self.users.flush()
        await self.tasks.flush()
        self.stored.outbox.extend(self._outbox.take_rows())


class InMemoryTransactor:
    """Runs one body at a time on a copy, which is kept if all went well."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.stored = Stored()
        self._now = now
        self._turn = asyncio.Lock()

    async def __call__(self, body: Callable[[InMemoryUsersWork], Awaitable[T]], /) -> T:
        async with self._turn:
            work = InMemoryUsersWork(deepcopy(self.stored), self._now)
            result = await body(work)
            await work.flush()
            self.stored = work.stored
            return result


class InMemoryViews:
    def __init__(self, transactor: InMemoryTransactor) -> None:
        self._transactor = transactor

    async def credentials_of(self, login: Username | EmailAddress, /) -> Credentials | None:
        for user in self._transactor.stored.users.values():
            if login in (user.username, user.email):
                return Credentials(user.id, user.password_hash, user.active, user.roles)
        return None

    async def profile_of(self, user_id: UUID, /) -> Profile | None:
        user = self._transactor.stored.users.get(user_id)
        if user is None:
            return None
        alias = user.alias.value if user.alias else None
        return Profile(
            user.id, user.username.value, user.email.value, alias, user.roles, user.created_at
        )

    async def tasks_of(
        self, user_id: UUID, /, *, before: UUID | None, limit: int
    ) -> Sequence[TaskView]:
        newest_first = sorted(self._transactor.stored.tasks.values(), key=lambda t: t.id)[::-1]
        return [
            TaskView(task.id, task.name.value, task.created_at)
            for task in newest_first
            if task.assignee_id == user_id and (before is None or task.id < before)
        ][:limit]


class InMemorySignInAttempts:
    def __init__(self) -> None:
        self._attempts: dict[str, Attempts] = {}

    async def count(self, whose: str, /, *, now: datetime, window: timedelta) -> Attempts:
        before = self._attempts.get(whose)
        if before is None or before.window_began_at <= now - window:
            before = Attempts(0, now)
        self._attempts[whose] = Attempts(before.count + 1, before.window_began_at)
        return self._attempts[whose]

    async def uncount(self, whose: str, /, counted: Attempts) -> None:
        current = self._attempts[whose]
        if current.window_began_at == counted.window_began_at:
            self._attempts[whose] = Attempts(max(current.count - 1, 0), current.window_began_at)


class PlainHasher:
    """Hashes nothing; it remembers whom it compared with, and makes hashes of one generation."""

    def __init__(self, generation: str = "1") -> None:
        self.generation = generation
        self.verified: list[PasswordHash | None] = []

    async def hash(self, password: Password, /) -> PasswordHash:
        return PasswordHash(f"{self.generation} {password.value}")

    async def verify(self, password: Password, known: PasswordHash | None, /) -> bool:
        self.verified.append(known)
        return known is not None and known.value.split(" ", 1)[1] == password.value

    def is_outdated(self, known: PasswordHash, /) -> bool:
        return not known.value.startswith(f"{self.generation} ")


class ReadableTokens:
    """Tokens that say whom they were issued to."""

    def __init__(self, lifetime: timedelta = timedelta(minutes=15)) -> None:
        self._lifetime = lifetime

    def issue(self, user_id: UUID, roles: frozenset[Role], /, now: datetime) -> IssuedToken:
        said = " ".join([str(user_id), *sorted(roles), now.isoformat()])
        return IssuedToken(said, self._lifetime)
