"""Create an operator: someone who runs the system, made by a command on its own machine."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from users_service.application.ports import UsersWork
from users_service.domain.user import User
from users_service.domain.values import EmailAddress, PasswordHash, Username


@dataclass(frozen=True, slots=True)
class CreateOperator:
    username: Username
    email: EmailAddress
    password_hash: PasswordHash


class CreateOperatorHandler:
    def __init__(self, new_id: Callable[[], UUID], now: Callable[[], datetime]) -> None:
        self._new_id = new_id
        self._now = now

    async def __call__(self, work: UsersWork, command: CreateOperator) -> UUID:
        """Return the new operator's id.

        :raises UsernameIsTaken: when the work is flushed, as the next
        :raises EmailIsTaken:
        """
        operator = User.create_operator(
            self._new_id(),
            username=command.username,
            email=command.email,
            password_hash=command.password_hash,
            now=self._now(),
        )
        work.users.save(operator)
        return operator.id
