"""A user: someone who may sign in, with one id for life."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from chassis.domain import Aggregate, DomainEvent
from users_service.domain.values import Alias, EmailAddress, PasswordHash, Username


class Role(StrEnum):
    """What a user may do to the data of others."""

    OPERATOR = "operator"


NO_ROLES: Final[frozenset[Role]] = frozenset()


@dataclass(frozen=True, slots=True)
class Identity:
    """What a user is called, written to and recognised by.

    The password is hashed before a transaction is opened, since hashing takes long.
    """

    username: Username
    email: EmailAddress
    password_hash: PasswordHash
    alias: Alias | None = None


@dataclass(frozen=True, slots=True)
class UserSignedUp(DomainEvent):
    user_id: UUID
    username: Username


@dataclass(frozen=True, slots=True)
class OperatorCreated(DomainEvent):
    user_id: UUID


class User(Aggregate):
    """Someone who may sign in by username or e-mail address while they are active."""

    def __init__(
        self,
        id_: UUID,
        identity: Identity,
        *,
        created_at: datetime,
        active: bool = True,
        roles: frozenset[Role] = NO_ROLES,
        version: int = 0,
        sequence: int = 0,
    ) -> None:
        super().__init__(id_, version=version, sequence=sequence)
        self.identity = identity
        self.created_at = created_at
        self.active = active
        self.roles = roles

    @classmethod
    def sign_up(cls, id_: UUID, identity: Identity, now: datetime) -> "User":
        user = cls(id_, identity, created_at=now)
        user._record(UserSignedUp(id_, identity.username, occurred_at=now))
        return user

    @classmethod
    def create_operator(cls, id_: UUID, identity: Identity, now: datetime) -> "User":
        """Create an operator. Operators do not sign up, so no account is opened for them."""
        user = cls(id_, identity, created_at=now, roles=frozenset({Role.OPERATOR}))
        user._record(OperatorCreated(id_, occurred_at=now))
        return user

    def replace_hash(self, old: PasswordHash, new: PasswordHash) -> None:
        """Store the same password under a newer hash, unless the password has been changed."""
        if self.identity.password_hash == old:
            self.identity = replace(self.identity, password_hash=new)
