"""What the use cases need from outside: repositories, a hasher, tokens, a count of attempts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from chassis.persistence import transactor
from users_service.domain.task import Task
from users_service.domain.user import Role, User
from users_service.domain.values import EmailAddress, Password, PasswordHash, Username


class Users(Protocol):
    def save(self, user: User, /) -> object:
        """Keep the user and what happened to them for the flush.

        :raises UsernameIsTaken: at the flush, as the next
        :raises EmailIsTaken:
        """

    async def load(self, ids: Iterable[UUID], /) -> Mapping[UUID, User]: ...


class Tasks(Protocol):
    def save(self, task: Task, /) -> object: ...


class UsersWork(transactor.Work, Protocol):
    """An open transaction with the service's repositories."""

    @property
    def users(self) -> Users: ...

    @property
    def tasks(self) -> Tasks: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a sign-in is judged by."""

    user_id: UUID
    password_hash: PasswordHash
    active: bool
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class Profile:
    """A user as they see themselves."""

    id: UUID
    username: str
    email: str
    alias: str | None
    roles: frozenset[Role]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as its assignee sees it."""

    id: UUID
    name: str
    created_at: datetime


class Views(Protocol):
    """What can be read, each as one query outside of any unit of work."""

    async def credentials_of(self, login: Username | EmailAddress, /) -> Credentials | None: ...

    async def profile_of(self, user_id: UUID, /) -> Profile | None: ...

    async def tasks_of(
        self, user_id: UUID, /, *, before: UUID | None, limit: int
    ) -> Sequence[TaskView]:
        """Return up to ``limit`` tasks of that assignee, newest first, older than ``before``."""


class PasswordHasher(Protocol):
    """Slow on purpose, so never within a transaction."""

    async def hash(self, password: Password, /) -> PasswordHash: ...

    async def verify(self, password: Password, known: PasswordHash | None, /) -> bool:
        """Tell whether the password is the known one; no hash at all takes as long."""

    def is_outdated(self, known: PasswordHash, /) -> bool:
        """Tell whether the hash was made otherwise than one would be made now."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often somebody tried within one window of time."""

    count: int
    window_began_at: datetime


class SignInAttempts(Protocol):
    """Counts sign-ins, right also when many come at once. ``whose`` is kept unreadable."""

    async def count(self, whose: str, /, *, now: datetime, window: timedelta) -> Attempts:
        """Count one more and return how many that makes, in a new window if the last is over."""

    async def uncount(self, whose: str, /, counted: Attempts) -> None:
        """Take back one that was counted, if its window still goes on."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An access token and how long it is good for."""

    text: str
    lifetime: timedelta


class AccessTokens(Protocol):
    def issue(self, user_id: UUID, roles: frozenset[Role], /, now: datetime) -> IssuedToken: ...
