"""Sign up: create a user, and publish that they signed up."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from users_service.application.ports import UsersWork
from users_service.domain.user import Identity, User


class SignUpHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: UsersWork, identity: Identity) -> UUID:
        """Return the new user's id.

        :raises UsernameIsTaken: when the work is flushed
        :raises EmailIsTaken: when the work is flushed
        """
        user = User.sign_up(self._new_id(), identity, self._now())
        # No query for the name: the database keeps it unique. A query would make any two
        # concurrent sign-ups conflict.
        work.users.save(user)
        return user.id
