"""Which domain events are published, and as which integration events."""

from collections.abc import Sequence
from typing import assert_never

from contracts.events import IntegrationEvent
from contracts.users import TaskCreatedV1, UserSignedUpV1
from users_service.domain.task import TaskCreated
from users_service.domain.user import OperatorCreated, UserSignedUp

Event = UserSignedUp | OperatorCreated | TaskCreated


def translate(event: Event) -> Sequence[IntegrationEvent]:
    """Return the integration events that publish a domain event; none: it is not published."""
    match event:
        case UserSignedUp():
            return [UserSignedUpV1(user_id=event.user_id, username=event.username.value)]
        case OperatorCreated():
            return []  # operators have no account, no tasks and no welcome
        case TaskCreated():
            return [
                TaskCreatedV1(
                    task_id=event.task_id, assignee_id=event.assignee_id, name=event.name.value
                )
            ]
        case _:
            assert_never(event)
