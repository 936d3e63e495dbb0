"""Create an operator: only a command on the service's own machine does this, never a request."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from users_service.application.ports import UsersWork
from users_service.domain.user import Identity, User


class CreateOperatorHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: UsersWork, identity: Identity) -> UUID:
        """Return the new operator's id.

        :raises UsernameIsTaken: when the work is flushed
        :raises EmailIsTaken: when the work is flushed
        """
        operator = User.create_operator(self._new_id(), identity, self._now())
        work.users.save(operator)
        return operator.id
