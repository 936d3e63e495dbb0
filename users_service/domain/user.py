"""A user: someone who may sign in, identified for life by one id."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from chassis.domain import Aggregate, DomainEvent
from users_service.domain.values import Alias, EmailAddress, PasswordHash, Username


class Role(StrEnum):
    """What a user may do beyond minding their own affairs."""

    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class UserSignedUp(DomainEvent):
    user_id: UUID
    username: Username


@dataclass(frozen=True, slots=True)
class OperatorCreated(DomainEvent):
    user_id: UUID


NO_ROLES: Final[frozenset[Role]] = frozenset()


class User(Aggregate):
    """Someone who may sign in by username or e-mail address while they are active."""

    def __init__(
        self,
        id_: UUID,
        *,
        username: Username,
        email: EmailAddress,
        password_hash: PasswordHash,
        alias: Alias | None,
        created_at: datetime,
        active: bool = True,
        roles: frozenset[Role] = NO_ROLES,
        version: int = 0,
        sequence: int = 0,
    ) -> None:
        super().__init__(id_, version=version, sequence=sequence)
        self.username = username
        self.email = email
        self.password_hash = password_hash
        self.alias = alias
        self.created_at = created_at
        self.active = active
        self.roles = roles

    @classmethod
    def sign_up(
        cls,
        id_: UUID,
        *,
        username: Username,
        email: EmailAddress,
        password_hash: PasswordHash,
        alias: Alias | None,
        now: datetime,
    ) -> "User":
        user = cls(
            id_,
            username=username,
            email=email,
            password_hash=password_hash,
            alias=alias,
            created_at=now,
        )
        user._record(UserSignedUp(id_, username, occurred_at=now))
        return user

    @classmethod
    def create_operator(
        cls,
        id_: UUID,
        *,
        username: Username,
        email: EmailAddress,
        password_hash: PasswordHash,
        now: datetime,
    ) -> "User":
        """Make someone who runs the system; they did not sign up, so nobody opens an account."""
        user = cls(
            id_,
            username=username,
            email=email,
            password_hash=password_hash,
            alias=None,
            created_at=now,
            roles=frozenset({Role.OPERATOR}),
        )
        user._record(OperatorCreated(id_, occurred_at=now))
        return user

    def replace_hash(self, old: PasswordHash, new: PasswordHash) -> None:
        """Keep the same password under a newer hash, unless it has been changed meanwhile."""
        if self.password_hash == old:
            self.password_hash = new
