"""What the users service publishes: people who signed up, and their tasks."""

from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import Field

from contracts.events import PRINTABLE, EventWithheld, IntegrationEvent


class UserSignedUpV1(IntegrationEvent):
    """Someone signed up. The subject is the user.

    The e-mail address and the alias are left out: no consumer needs them, and what is
    published is kept for ever.
    """

    event_type: ClassVar[str] = "users.user-signed-up.v1"

    user_id: UUID
    # Wider than the sign-up rule, which may change: old readers must read new names.
    username: Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)]


class TaskCreatedV1(IntegrationEvent):
    """A task was given to a user. The subject is the task."""

    event_type: ClassVar[str] = "users.task-created.v1"

    task_id: UUID
    assignee_id: Annotated[UUID, Field(description="The user who is to do it.")]
    name: Annotated[str, Field(min_length=1, max_length=50, pattern=PRINTABLE)]


class UsersEventWithheldV1(EventWithheld):
    """An event of the users service was discarded; this one has its sequence."""

    event_type: ClassVar[str] = "users.event-withheld.v1"
