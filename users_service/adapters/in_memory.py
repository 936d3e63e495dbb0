"""The service's ports in memory, for tests; they keep the same promises as PostgreSQL."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from chassis import testing
from chassis.persistence.outbox import Outbox, OutboxRow
from chassis.testing import InMemoryAggregates, InMemoryIdempotencyKeys
from chassis.web.paging import Page, page_of
from contracts.topics import USERS_TASK, USERS_USER
from users_service.application.integration_events import translate
from users_service.application.ports import Attempts, Credentials, IssuedToken, Profile, TaskView
from users_service.domain.errors import EmailIsTaken, UsernameIsTaken, UserNotFound
from users_service.domain.task import Task
from users_service.domain.user import Role, User
from users_service.domain.values import EmailAddress, Password, PasswordHash, Username


@dataclass
class Stored:
    """Everything that has been committed."""

    users: dict[UUID, User] = field(default_factory=dict)
    tasks: dict[UUID, Task] = field(default_factory=dict)
    outbox: list[OutboxRow] = field(default_factory=list)
    idempotency_keys: InMemoryIdempotencyKeys = field(default_factory=InMemoryIdempotencyKeys)


class InMemoryUsersWork:
    def __init__(self, stored: Stored, now: Callable[[], datetime]) -> None:
        self._stored = stored
        self._outbox = Outbox("/users", now)
        self.users = InMemoryAggregates(
            stored.users,
            self._outbox,
            topic=USERS_USER,
            translate=translate,
            unique={
                UsernameIsTaken: lambda user: user.identity.username,
                EmailIsTaken: lambda user: user.identity.email,
            },
        )
        self.tasks = InMemoryAggregates(
            stored.tasks, self._outbox, topic=USERS_TASK, translate=translate
        )
        self.idempotency_keys = stored.idempotency_keys

    async def flush(self) -> None:
        await self.users.flush()
        await self.tasks.flush()
        self._stored.outbox.extend(self._outbox.take_rows())


class InMemoryTransactor(testing.InMemoryTransactor[Stored, InMemoryUsersWork]):
    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(Stored(), lambda stored: InMemoryUsersWork(stored, now))


class InMemoryViews:
    def __init__(self, transactor: InMemoryTransactor) -> None:
        self._transactor = transactor

    async def credentials_of(self, login: Username | EmailAddress, /) -> Credentials | None:
        for user in self._transactor.stored.users.values():
            known = user.identity
            if login in (known.username, known.email):
                return Credentials(user.id, known.password_hash, user.active, user.roles)
        return None

    async def profile_of(self, user_id: UUID, /) -> Profile:
        user = self._transactor.stored.users.get(user_id)
        if user is None:
            raise UserNotFound
        known = user.identity
        return Profile(
            user.id,
            known.username.value,
            known.email.value,
            known.alias.value if known.alias else None,
            user.roles,
            user.created_at,
        )

    async def tasks_of(
        self, user_id: UUID, /, *, before: UUID | None, limit: int
    ) -> Page[TaskView, UUID]:
        newest_first = sorted(self._transactor.stored.tasks.values(), key=lambda t: t.id)[::-1]
        found = [
            TaskView(task.id, task.name.value, task.created_at)
            for task in newest_first
            if task.assignee_id == user_id and (before is None or task.id < before)
        ]
        return page_of(found, limit, key=lambda task: task.id)


class InMemoryRecentAttempts:
    def __init__(self) -> None:
        self._attempts: dict[str, Attempts] = {}

    async def count(self, source: str, /, *, now: datetime, window: timedelta) -> Attempts:
        before = self._attempts.get(source)
        if before is None or before.window_began_at <= now - window:
            before = Attempts(0, now)
        self._attempts[source] = Attempts(before.count + 1, before.window_began_at)
        return self._attempts[source]

    async def uncount(self, source: str, /, counted: Attempts) -> None:
        current = self._attempts[source]
        if current.window_began_at == counted.window_began_at:
            self._attempts[source] = Attempts(max(current.count - 1, 0), current.window_began_at)


class InMemoryKnownNetworks:
    def __init__(self, kept: timedelta) -> None:
        self._kept = kept
        self._signed_in_at: dict[tuple[str, str], datetime] = {}

    async def add(self, who: str, network: str, /, *, now: datetime) -> None:
        self._signed_in_at[who, network] = now

    async def has(self, who: str, network: str, /, *, now: datetime) -> bool:
        at = self._signed_in_at.get((who, network))
        return at is not None and at > now - self._kept


class PlainHasher:
    """Hashes nothing; it remembers which hashes it verified, and makes those of one generation."""

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
    """Tokens that contain the user and the roles in plain text."""

    def __init__(self, lifetime: timedelta = timedelta(minutes=15)) -> None:
        self._lifetime = lifetime

    def issue(self, user_id: UUID, roles: frozenset[Role], /, now: datetime) -> IssuedToken:
        text = " ".join([str(user_id), *sorted(roles), now.isoformat()])
        return IssuedToken(user_id, text, self._lifetime)
