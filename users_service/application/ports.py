"""What the use cases need: repositories, views, a hasher, tokens, a count of attempts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from chassis.persistence import transactor
from chassis.persistence.idempotency_keys import IdempotencyKeys
from chassis.web.paging import Page
from users_service.domain.task import Task
from users_service.domain.user import Role, User
from users_service.domain.values import EmailAddress, Password, PasswordHash, Username


class Users(Protocol):
    def save(self, user: User, /) -> object:
        """Keep the user and their new events for the flush.

        :raises UsernameIsTaken: at the flush
        :raises EmailIsTaken: at the flush
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

    @property
    def idempotency_keys(self) -> IdempotencyKeys: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What decides whether a sign-in succeeds."""

    user_id: UUID
    password_hash: PasswordHash
    active: bool
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user sees of themselves."""

    id: UUID
    username: str
    email: str
    alias: str | None
    roles: frozenset[Role]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TaskView:
    """What an assignee sees of a task."""

    id: UUID
    name: str
    created_at: datetime


class Views(Protocol):
    """Reads, each one query outside of any unit of work."""

    async def credentials_of(self, login: Username | EmailAddress, /) -> Credentials | None: ...

    async def profile_of(self, user_id: UUID, /) -> Profile:
        """Return the user's profile.

        :raises UserNotFound: there is no such user
        """

    async def tasks_of(
        self, user_id: UUID, /, *, before: UUID | None, limit: int
    ) -> Page[TaskView, UUID]:
        """Return up to ``limit`` tasks of that assignee, newest first, older than ``before``."""


class PasswordHasher(Protocol):
    """Slow on purpose, so it is never called within a transaction.

    ``hash`` and ``verify`` raise ``TooManyHashes`` where they would wait for long.
    """

    async def hash(self, password: Password, /) -> PasswordHash: ...

    async def verify(self, password: Password, known: PasswordHash | None, /) -> bool:
        """Return whether the password has this hash; without a hash it takes as long."""

    def is_outdated(self, known: PasswordHash, /) -> bool:
        """Return whether new hashes are made with other settings than this one."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How many attempts were counted within one window of time."""

    count: int
    window_began_at: datetime

    def over_in_s(self, now: datetime, window: timedelta) -> float:
        """Return in how many seconds the next window may begin."""
        return (self.window_began_at + window - now).total_seconds()


class RecentAttempts(Protocol):
    """Counts what was tried lately per source, exactly also under concurrency.

    A source is, for example, a network, or a name in a network. It is stored unreadable.
    """

    async def count(self, source: str, /, *, now: datetime, window: timedelta) -> Attempts:
        """Count one more and return the new count. It starts a new window if the last is over."""

    async def uncount(self, source: str, /, counted: Attempts) -> None:
        """Take back one that was counted, unless its window is over."""


class KnownNetworks(Protocol):
    """The networks from which someone signed in lately. They are stored unreadable."""

    async def add(self, who: str, network: str, /, *, now: datetime) -> None: ...

    async def has(self, who: str, network: str, /, *, now: datetime) -> bool: ...


@dataclass(frozen=True, slots=True)
class Network:
    """Where a request comes from: an IPv4 address or an IPv6 /64.

    :ivar shared: many people are behind it
    """

    name: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class PerNetwork:
    """A limit of one network, and of one that is shared."""

    single: int
    shared: int

    def of(self, network: Network) -> int:
        return self.shared if network.shared else self.single


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An access token, whose it is and how long it is valid."""

    user_id: UUID
    text: str
    lifetime: timedelta


class AccessTokens(Protocol):
    def issue(self, user_id: UUID, roles: frozenset[Role], /, now: datetime) -> IssuedToken: ...
