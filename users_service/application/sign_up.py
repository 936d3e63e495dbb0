"""Sign up: someone becomes a user, and the others hear of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from users_service.application.ports import UsersWork
from users_service.domain.user import User
from users_service.domain.values import Alias, EmailAddress, PasswordHash, Username


@dataclass(frozen=True, slots=True)
class SignUp:
    """The password comes hashed: that takes too long for an open transaction."""

    username: Username
    email: EmailAddress
    password_hash: PasswordHash
    alias: Alias | None


class SignUpHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: UsersWork, command: SignUp) -> UUID:
        """Return the new user's id.

        :raises UsernameIsTaken: when the work is flushed, as the next
        :raises EmailIsTaken:
        """
        user = User.sign_up(
            self._new_id(),
            username=command.username,
            email=command.email,
            password_hash=command.password_hash,
            alias=command.alias,
            now=self._now(),
        )
        # Not looked up before: uniqueness is the database's to keep, and a read would make
        # every two sign-ups at once conflict.
        work.users.save(user)
        return user.id
